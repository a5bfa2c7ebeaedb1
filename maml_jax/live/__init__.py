"""A trained run, bar by bar: what to hold now, a paper account, orders to a broker."""
