"""Messages hide what lets somebody in, and are short whatever they speak of."""

import logging
import pickle
import sys

import pytest

from maml_jax import errors, watchdog
from maml_jax.cli.main import _Masked
from maml_jax.errors import MOST, mask_secrets, mask_values
from maml_jax.experiment import Config

ADDRESSES = {
    "https://me:s3cret@host.com/bars.csv": "https://***@host.com/bars.csv",
    "https://s3cret@host.com:8080/bars.csv": "https://***@host.com:8080/bars.csv",
    "https:/me:s3cret@host.com/bars.csv": "https:/***@host.com/bars.csv",  # as paths write it
    "ftp://me:p@s3cret@10.0.0.1/x": "ftp://***@10.0.0.1/x",
    "me:s3cret@host.com": "***@host.com",
    "https://host.com/a?apikey=s3cret": "https://host.com/a?apikey=***",
    "https://host.com/a?b=1&API-Key=s3cret&c=2": "https://host.com/a?b=1&API-Key=***&c=2",
    "https://host.com/a?access_token=s3cret#x": "https://host.com/a?access_token=***#x",
    "wss://h/s?X-Amz-Signature=s3cret": "wss://h/s?X-Amz-Signature=***",
    "https://h/#id_token=s3cret": "https://h/#id_token=***",
    "Authorization: Bearer s3cret.s3cret": "Authorization: Bearer ***",
}
KINDS = [
    kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.MamlJaxError)
    and kind not in (errors.LookAheadError, errors.TrainingError)
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_hides_secrets_and_is_short(kind):
    for address, hidden in ADDRESSES.items():
        error = kind(f"{address}: no such file; see '{address}', or \"{address}\"")
        expected = f"{hidden}: no such file; see '{hidden}', or \"{hidden}\""
        assert str(error) == expected
        assert "s3cret" not in str(pickle.loads(pickle.dumps(error)))
    assert len(str(kind("x" * 10**7))) < MOST
    middle = f"{'x' * MOST} https://me:{'s3cret' * 10_000}@host.com {'y' * MOST}"
    assert "s3cret" not in str(kind(middle))


@pytest.mark.parametrize(
    "text",
    [
        "store:bybit-linear/1h", "10:30 at 2020-01-01 10:00", "key 'data.path': no", "a@b.com",
        "C:/bars@home/x.csv", "https://host.com/bars?symbol=BTC&interval=60", "/data/x:1@2/y.csv",
        "unknown key 'training.keys'; there are ['steps']", "BTC/USDT:USDT", "basic settings",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert mask_secrets(text) == text


def test_settings_logs_and_commands_are_written_without_secrets(monkeypatch):
    for address, hidden in ADDRESSES.items():
        config = Config().changed(data={"path": (address, "a.csv"), "classes": {"A": address}})
        text = config.to_toml()
        assert "s3cret" not in text and hidden in text
        assert config.data.path[0] == address
        assert "s3cret" not in str(mask_values(config.model_dump()))
        record = logging.LogRecord("maml_jax", logging.INFO, "", 0, "from %s", (address,), None)
        assert "s3cret" not in _Masked("%(message)s").format(record)
        monkeypatch.setattr(sys, "argv", ["maml-jax", "fetch", "bybit", "--address", address])
        assert "s3cret" not in watchdog._read_command()
