"""Memory that runs out: the same step in smaller micro-batches, or a word about the row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from luthier.batches.cutting import split_batch
from luthier.contracts.counting import count_positions
from luthier.contracts.notice import Notice
from luthier.core.errors import RunError
from luthier.engine.loop import train
from luthier.engine.memory import MicroBatches, is_out_of_memory, memory_errors, undivided
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., Any]
ON_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
ON_CPU = RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: 9 bytes.")


class Scarce:
    """The objective of a device that runs out of memory above so many positions."""

    def __init__(
        self, limit: int, error: Exception = ON_GPU, *, backward: bool = False, first_call: int = 1
    ) -> None:
        self.limit, self.error, self.backward, self.first_call = limit, error, backward, first_call
        self.inner = SupervisedFineTuning()
        self.sizes: list[int] = []

    def weight(self, batch: Any) -> torch.Tensor:
        return self.inner.weight(batch)

    def __call__(self, model: Any, batch: Any) -> Any:
        self.sizes.append(count_positions(batch))
        if self.sizes[-1] <= self.limit or len(self.sizes) < self.first_call:
            return self.inner(model, batch)
        if not self.backward:
            torch.rand(3)  # A failed try has drawn numbers, too.
            raise self.error
        # In the backward pass, when the second layer and all above have their gradients.
        (layer,) = (m for n, m in model.named_modules() if n.endswith("layers.1"))
        hook = layer.register_full_backward_hook(self._fail)
        loss = self.inner(model, batch)
        hook.remove()
        return loss

    def _fail(self, *_: Any) -> None:
        raise self.error


def assert_equal_weights(one: Any, other: Any, tolerance: float = 0.0) -> None:
    expected = dict(other.named_parameters())
    for name, weight in one.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("packing", [False, "padding_free", True])
@pytest.mark.parametrize("backward", [False, True])
def test_the_update_is_the_same(
    make_training: Make,
    make_model: Make,
    new_recorder: Any,
    lora: bool,
    packing: Any,
    backward: bool,
) -> None:
    common: dict[str, Any] = {
        "batch_size": 2 if packing is True else 4,
        "accumulation": 2,
        "packing": packing,
        "max_steps": 3,
    }
    ample, scarce = new_recorder(), new_recorder()
    plain = make_training(model=make_model(lora=lora), observers=(ample,), **common)
    train(plain)
    objective = Scarce(30, backward=backward, first_call=2)
    told: list[Notice] = []
    short = make_training(
        model=make_model(lora=lora),
        objective=objective,
        micro_batches=MicroBatches(split_batch, tell=told.append),
        observers=(scarce,),
        **common,
    )
    train(short)
    assert max(objective.sizes) > 30, "memory never ran out"
    assert_equal_weights(plain.model, short.model, tolerance=1e-6)
    assert scarce.losses() == pytest.approx(ample.losses(), abs=1e-5)
    assert short.progress == plain.progress
    (notice,) = told
    assert notice.setting == "per_device_train_batch_size"
    assert "memory ran out: batches are halved, the result stays the same" in str(notice)


def test_the_smaller_size_stays(make_training: Make, make_rows: Make) -> None:
    rows = [row for row in make_rows(60) if len(row["input_ids"]) >= 12][:16]
    objective = Scarce(40)
    micro_batches = MicroBatches(split_batch)
    training = make_training(
        rows=rows, batch_size=4, objective=objective, micro_batches=micro_batches
    )
    train(training)
    assert [size > 40 for size in objective.sizes].count(True) == 1
    assert objective.sizes[0] > 40
    assert micro_batches.get_state() == {"max_positions": -(-objective.sizes[0] // 2)}
    again = MicroBatches(split_batch)
    again.set_state(micro_batches.get_state())
    assert again.max_positions == micro_batches.max_positions


def test_only_what_is_too_large_is_cut(make_training: Make) -> None:
    micro_batches = MicroBatches(split_batch, max_positions=30)
    training = make_training(batch_size=2)
    window = next(training.batches.windows())
    assert list(micro_batches.cut(window)) == window
    micro_batches.max_positions = count_positions(window[0]) - 1
    assert [len(part["input_ids"]) for part in micro_batches.cut(window)] == [1, 1]


def test_the_failed_try_leaves_no_trace(make_training: Make, make_model: Make) -> None:
    """With dropout: cut from the start, or only after memory ran out, the same bits."""
    models = []
    for objective, size in ((Scarce(40, backward=True, first_call=2), None), (Scarce(10**9), 32)):
        torch.manual_seed(5)
        training = make_training(
            model=make_model(lora=True, dropout=0.3),
            objective=objective,
            batch_size=4,
            accumulation=2,
            max_steps=2,
            micro_batches=MicroBatches(split_batch, size),
        )
        window = [{"input_ids": torch.ones(4, 16, dtype=torch.int64)}] * 2
        window = [
            batch | {"labels": batch["input_ids"], "attention_mask": batch["input_ids"]}
            for batch in window
        ]
        training.batches.windows = lambda window=window: iter([window] * 2)
        train(training)
        models.append(training.model)
    assert_equal_weights(*models)


@pytest.mark.parametrize("packing", [False, True])
def test_a_row_that_does_not_fit_by_itself_is_named(make_training: Make, packing: Any) -> None:
    training = make_training(
        batch_size=2,
        packing=packing,
        objective=Scarce(2),
        micro_batches=MicroBatches(split_batch),
    )
    with pytest.raises(RunError, match=r"memory ran out on a single row of \d+ tokens: CUDA") as e:
        train(training)
    assert "cutoff_len" in str(e.value)
    assert "gradient_checkpointing" in str(e.value)


def test_without_a_way_to_cut_the_batch_is_the_row(make_training: Make) -> None:
    with pytest.raises(RunError, match="memory ran out"):
        train(make_training(batch_size=4, objective=Scarce(2)))
    batch = {"input_ids": torch.ones(4, 4)}
    assert undivided(batch, 1) == [batch]


def test_the_processors_error_is_as_good(make_training: Make) -> None:
    objective = Scarce(40, ON_CPU)
    micro_batches = MicroBatches(split_batch)
    train(make_training(batch_size=4, objective=objective, micro_batches=micro_batches))
    assert max(objective.sizes) > 40
    assert micro_batches.max_positions is not None


def test_other_errors_pass(make_training: Make) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(make_training(objective=Scarce(2, error)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ON_GPU, True),
        (ON_CPU, True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_what_counts_as_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


REAL = '''
import resource, sys
import torch
from luthier.batches.collate import causal_lm_collate
from luthier.batches.cutting import split_batch
from luthier.engine.memory import MicroBatches
from luthier.objectives.sft import SupervisedFineTuning

torch.set_num_threads(1)

class Wide(torch.nn.Module):
    """Keeps 16 MiB for each token."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(8, 4)
        self.head = torch.nn.Linear(4, 8)

    def forward(self, input_ids, attention_mask, use_cache):
        wide = self.embedding(input_ids)[..., None].expand(*input_ids.shape, 4, 2**20)
        hidden = torch.exp(wide).mean(dim=-1)
        return type("Output", (), {"logits": self.head(hidden)})

def gradients(limit_bytes):
    torch.manual_seed(0)
    model, micro_batches, sizes = Wide(), MicroBatches(split_batch), []
    rows = [{"input_ids": [n, 2, 3, n], "labels": [-100, 2, 3, n]} for n in range(4)]
    batch = causal_lm_collate(rows, pad_id=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def compute():
        for part in micro_batches.cut([batch]):
            sizes.append(part["input_ids"].numel())
            SupervisedFineTuning()(model, part).total.backward()

    if limit_bytes:
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limit_bytes, resource.RLIM_INFINITY))
    micro_batches.retry(compute, optimizer.zero_grad)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return sizes, [p.grad for p in model.parameters()]

_, expected = gradients(None)
sizes, found = gradients(700 * 2**20)
assert sizes[0] == 16 and sizes[-1] <= 8, sizes
for left, right in zip(found, expected, strict=True):
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
print("sizes", *sizes)
'''


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux'")
def test_a_real_limit_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, *_, last = map(int, done.stdout.split()[1:])
    assert first == 16
    assert last <= 8


@pytest.mark.parametrize("error", [ON_GPU, ON_CPU])
def test_memory_that_runs_out_beside_the_batches_is_an_error_of_the_users(error: Exception):
    beside = "memory ran out beside the batches"
    with pytest.raises(RunError, match=beside) as caught, memory_errors():
        raise error
    assert caught.value.mend is not None
    assert "adafactor" in caught.value.mend


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="something else"), memory_errors():
        raise RuntimeError("something else")
