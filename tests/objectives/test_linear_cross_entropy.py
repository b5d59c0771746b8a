"""Head and loss in one against torch's cross-entropy of full logits: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from luthier.objectives import logit_chunks
from luthier.objectives.linear_cross_entropy import linear_cross_entropy, linear_log_probs

ROWS, WIDTH, SIZE, RANK = 19, 8, 37, 3
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "smoothing": {"label_smoothing": 0.1},
    "softcap": {"softcap": 2.0},
    "scale": {"scale": 0.25},
    "low rank": {"low_rank": True},
    "all": {
        "bias": True,
        "low_rank": True,
        "label_smoothing": 0.2,
        "softcap": 3.0,
        "scale": 1.7,
    },
}


class Case:
    """Random tensors of a head, all with gradient, and the loss by full logits."""

    def __init__(
        self, *, bias: bool = False, low_rank: bool = False, dtype: Any = torch.float32, **rule: Any
    ) -> None:
        random = torch.Generator().manual_seed(0)

        def leaf(*shape: int) -> torch.Tensor:
            made = torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)
            return made.requires_grad_()

        self.hidden, self.weight = leaf(ROWS, WIDTH), leaf(SIZE, WIDTH)
        self.bias = leaf(SIZE) if bias else None
        self.low_rank = (leaf(ROWS, RANK), leaf(SIZE, RANK)) if low_rank else None
        self.targets = torch.randint(0, SIZE, (ROWS,), generator=random)
        self.weights = torch.rand(ROWS, generator=random) * 2
        self.weights[3] = 0.0
        self.smoothing = rule.pop("label_smoothing", 0.0)
        self.rule = rule

    @property
    def leaves(self) -> list[torch.Tensor]:
        given = [self.hidden, self.weight, self.bias, *(self.low_rank or ())]
        return [tensor for tensor in given if tensor is not None]

    def logits(self) -> torch.Tensor:
        logits = F.linear(self.hidden, self.weight, self.bias)
        if self.low_rank is not None:
            logits = logits + F.linear(*self.low_rank)
        logits = logits * self.rule.get("scale", 1.0)
        cap = self.rule.get("softcap")
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def losses(self) -> torch.Tensor:
        logits = self.logits()
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(
            logits, self.targets, reduction="none", label_smoothing=self.smoothing
        )

    def ours(self, **options: Any) -> Any:
        options = {"bias_V": self.bias, "low_rank": self.low_rank, **self.rule, **options}
        return linear_cross_entropy(
            self.hidden,
            self.weight,
            self.targets,
            self.weights,
            label_smoothing=self.smoothing,
            **options,
        )

    def log_probs(self, **options: Any) -> torch.Tensor:
        options = {"bias_V": self.bias, "low_rank": self.low_rank, **self.rule, **options}
        return linear_log_probs(self.hidden, self.weight, self.targets, **options)

    def gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, self.leaves))


@pytest.mark.parametrize("chunk_rows", [None, 1, 7, 19])
@pytest.mark.parametrize("name", VARIANTS)
def test_values_and_gradients_are_torchs(name: str, chunk_rows: int | None) -> None:
    case = Case(**VARIANTS[name])
    result, losses = case.ours(chunk_rows=chunk_rows), case.losses()
    expected = (losses * case.weights).sum()
    assert float(result.total) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(result.losses, losses.detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(result.correct, case.logits().argmax(-1) == case.targets)
    assert not result.losses.requires_grad
    got, wanted = case.gradients(result.total * 0.3), case.gradients(expected * 0.3)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert not got[0][3].any()  # The row of weight 0 teaches nothing.


@pytest.mark.parametrize("chunk_rows", [None, 1, 7])
@pytest.mark.parametrize("name", VARIANTS)
def test_dft_weighs_each_row_by_its_probability(name: str, chunk_rows: int | None) -> None:
    """The factor gets no gradient, so finite differences would not agree; full logits must."""
    case = Case(**VARIANTS[name], dtype=torch.float64)
    probabilities = case.logits().detach().softmax(-1)[torch.arange(ROWS), case.targets]
    losses = case.losses() * probabilities
    expected = (losses * case.weights).sum()
    result = case.ours(chunk_rows=chunk_rows, dft=True)
    torch.testing.assert_close(result.total, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(result.losses, losses.detach(), rtol=1e-9, atol=1e-12)
    got, wanted = case.gradients(result.total), case.gradients(expected)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_dft_in_float16_has_the_same_gradients() -> None:
    """There the logits are computed again in the backward pass."""
    case, exact = Case(dtype=torch.float16), Case(dtype=torch.float64)
    for leaf, wide in zip(case.leaves, exact.leaves, strict=True):
        wide.data = leaf.detach().double()
    got = case.gradients(case.ours(dft=True, chunk_rows=4).total)
    wanted = exact.gradients(exact.ours(dft=True).total)
    for gradient, expected in zip(got, wanted, strict=True):
        torch.testing.assert_close(gradient.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    """Along a random direction. (torch's gradcheck runs one backward pass several times.)"""
    case = Case(**VARIANTS[name], dtype=torch.float64)
    gradients = case.gradients(case.ours(chunk_rows=4).total)
    random = torch.Generator().manual_seed(1)
    for leaf, gradient in zip(case.leaves, gradients, strict=True):
        direction = torch.randn(leaf.shape, generator=random, dtype=leaf.dtype)
        totals = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                leaf += step * direction
                totals.append(float(case.ours(chunk_rows=4).total))
        with torch.no_grad():
            leaf += 1e-6 * direction
        slope = (totals[0] - totals[1]) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_log_prob_gradients_agree_with_gradcheck(name: str) -> None:
    variant = {key: value for key, value in VARIANTS[name].items() if key != "label_smoothing"}
    case = Case(**variant, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *_: case.log_probs(chunk_rows=4), case.leaves, fast_mode=True
    )


def test_weights_of_none_are_ones() -> None:
    case = Case()
    expected = linear_cross_entropy(case.hidden, case.weight, case.targets, torch.ones(ROWS))
    result = linear_cross_entropy(case.hidden, case.weight, case.targets)
    assert torch.equal(result.total, expected.total)


def test_only_what_is_trained_gets_a_gradient() -> None:
    whole = Case()
    hidden, weight = whole.gradients(whole.ours().total)
    frozen = Case()
    frozen.weight.requires_grad_(False)
    frozen.ours().total.backward()
    assert frozen.weight.grad is None
    torch.testing.assert_close(frozen.hidden.grad, hidden)
    head_only = Case()
    head_only.hidden.requires_grad_(False)
    head_only.ours().total.backward()
    assert head_only.hidden.grad is None
    torch.testing.assert_close(head_only.weight.grad, weight)


def test_without_gradients_none_are_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(label_smoothing=0.1, softcap=2.0)
    trained = case.ours()

    def never(*_: Any) -> None:
        raise AssertionError("a gradient was formed")

    monkeypatch.setattr("luthier.objectives.logit_chunks._add_gradients", never)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            result, log_probs = case.ours(), case.log_probs()
        assert not result.total.requires_grad
        assert torch.equal(result.total, trained.total)
        torch.testing.assert_close(result.losses, trained.losses)
        assert not log_probs.requires_grad


def test_no_rows_give_zero_and_zero_gradients() -> None:
    case = Case(bias=True)
    result = linear_cross_entropy(case.hidden[:0], case.weight, case.targets[:0], bias_V=case.bias)
    assert float(result.total) == 0.0
    result.total.backward()
    for leaf in (case.hidden, case.weight, case.bias):
        assert leaf is not None
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_gradients_of_micro_batches_add_up() -> None:
    case = Case()
    expected = case.gradients((case.losses() * case.weights).sum())[1]
    for part in (slice(0, 6), slice(6, ROWS)):
        linear_cross_entropy(
            case.hidden[part], case.weight, case.targets[part], case.weights[part]
        ).total.backward()
    torch.testing.assert_close(case.weight.grad, expected)


def test_a_second_backward_pass_is_refused() -> None:
    total = Case().ours().total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="formed in the forward pass and are used up"):
        total.backward()


def test_second_derivatives_are_refused() -> None:
    case = Case()
    (first,) = torch.autograd.grad(case.ours().total ** 2, case.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("name", ["plain", "bias", "softcap", "low rank"])
def test_bfloat16_is_as_exact_as_the_plain_way_in_bfloat16(name: str) -> None:
    exact = Case(**VARIANTS[name], dtype=torch.float64)
    case = Case(**VARIANTS[name])
    true_losses = exact.losses()
    true = exact.gradients((true_losses * exact.weights).sum())
    with torch.autocast("cpu", torch.bfloat16):
        result, losses = case.ours(chunk_rows=8), case.losses()
    assert result.total.dtype == torch.float32
    plain = case.gradients((losses * case.weights).sum())
    ours = case.gradients(result.total)

    def error(values: torch.Tensor, reference: torch.Tensor) -> float:
        return float((values.double() - reference).norm())

    assert 0 < error(result.losses, true_losses) <= 1.2 * error(losses, true_losses) + 1e-6
    for got, by_logits, reference in zip(ours, plain, true, strict=True):
        assert got.dtype == torch.float32
        assert error(got, reference) <= 1.2 * error(by_logits, reference)


def test_a_bfloat16_head_is_taken_as_it_is() -> None:
    case = Case(dtype=torch.bfloat16)
    result = case.ours()
    gradients = case.gradients(result.total)
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.bfloat16]
    wanted = case.gradients((case.losses() * case.weights).sum())
    torch.testing.assert_close(gradients, wanted, rtol=2e-2, atol=2e-2)


def test_float16_gradients_do_not_fall_under_its_range() -> None:
    """A likely token leaves 3e-8 for each other one: 0 in float16, unless it is scaled first."""
    hidden = torch.eye(2, 8) * 4.0
    weight = torch.zeros(SIZE, 8)
    weight[5, :2] = 4.33
    targets = torch.tensor([5, 5])
    scale = 2.0**16
    by_type = []
    for enabled in (False, True):
        head, states = weight.clone().requires_grad_(), hidden.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            result = linear_cross_entropy(states, head, targets)
        (result.total * scale).backward()
        assert head.grad is not None
        by_type.append(head.grad / scale)
    exact, halved = by_type
    assert 0 < float(exact[0, 0]) < 2e-7
    torch.testing.assert_close(halved, exact, rtol=2e-2, atol=0)


@pytest.mark.parametrize("chunk_rows", [None, 4])
@pytest.mark.parametrize("name", [name for name in VARIANTS if "smoothing" not in VARIANTS[name]])
def test_log_probs_and_their_gradients_are_torchs(name: str, chunk_rows: int | None) -> None:
    case = Case(**VARIANTS[name])
    wanted = case.logits().log_softmax(-1).gather(1, case.targets[:, None])[:, 0]
    got = case.log_probs(chunk_rows=chunk_rows)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    # A loss that uses each row in another way, as preference objectives do.
    signs = torch.linspace(-1, 1, ROWS)
    wanted_gradients = case.gradients(F.logsigmoid(wanted * signs).sum())
    gradients = case.gradients(F.logsigmoid(got * signs).sum())
    torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-5, atol=1e-5)


def test_log_probs_under_autocast_are_differentiated_in_its_type() -> None:
    case = Case()
    with torch.autocast("cpu", torch.bfloat16):
        got = case.log_probs()
        wanted = -case.losses()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=3e-2, atol=3e-2)
    gradients, expected = case.gradients(got.exp().sum()), case.gradients(wanted.exp().sum())
    torch.testing.assert_close(gradients, expected, rtol=5e-2, atol=2e-2)


class Sizes(TorchDispatchMode):
    """Remembers how many elements each tensor has that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.mark.parametrize("ours", [True, False])
def test_no_tensor_grows_with_rows_times_vocabulary(
    ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logit_chunks, "CHUNK_ELEMENTS", 4096)
    monkeypatch.setattr(logit_chunks, "TILE_ELEMENTS", 1024)
    largest: list[int] = []
    for size in (64, 1024):
        hidden, weight = torch.randn(192, 4, requires_grad=True), torch.randn(size, 4)
        targets = torch.randint(0, size, (192,))
        with Sizes() as sizes:
            if ours:
                total = linear_cross_entropy(hidden, weight, targets).total
            else:
                total = F.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
            total.backward()
        largest.append(sizes.largest)
    assert largest == ([4096, 4096] if ours else [192 * 64, 192 * 1024])
