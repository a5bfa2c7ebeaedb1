import jax
import jax.numpy as jnp
import pytest

from maml_jax.parallel.cost import count_cost


def cost(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count_cost(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_products_are_counted_as_multiplications_and_additions():
    assert cost(lambda a, b: a @ b, (3, 5), (5, 7)).flops == 2 * 3 * 5 * 7
    batched = cost(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 3, 5), (4, 5, 7))
    assert batched.flops == 4 * 2 * 3 * 5 * 7
    image, kernel = (1, 3, 9), (8, 3, 2)
    convolved = cost(lambda a, b: jax.lax.conv(a, b, (1,), "VALID"), image, kernel)
    assert convolved.flops == 2 * (8 * 8) * (3 * 2)


def test_the_gradient_of_a_product_costs_two_more():
    once = cost(lambda a, b: jnp.sum(a @ b), (30, 50), (50, 70)).flops
    both = cost(jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), (0, 1)), (30, 50), (50, 70)).flops
    assert both / once == pytest.approx(3, rel=0.1)


def test_loops_cost_their_length_and_branches_the_dearest():
    def product(x):
        return x @ x

    def repeated(x):
        return jax.lax.scan(lambda c, _: (product(c), None), x, None, length=6)[0]

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, product, lambda x: x, x)

    alone = cost(product, (8, 8)).flops
    assert cost(repeated, (8, 8)).flops == 6 * alone
    assert alone <= cost(either, (8, 8)).flops < 1.1 * alone
    assert cost(jax.jit(product), (8, 8)).flops == alone


def test_only_what_is_alive_at_one_time_counts():
    def chain(x):
        for _ in range(10):
            x = jnp.sin(x)
        return x

    def kept(x):
        return [jnp.sin(x + i) for i in range(10)]

    assert cost(chain, (1000,)).bytes == 2 * 4000
    assert cost(kept, (1000,)).bytes == pytest.approx(11 * 4000)
    stacked = cost(lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), c), x, None, length=9), (1000,))
    assert stacked.bytes >= 9 * 4000
