"""A trained network as a file for others: weights without code, ONNX, and torch's exported program.

An exported graph is kept only if it gives the network's own logits on windows that it is shown; `PARITY` says how
exactly. The graph holds the network and nothing else: its input are windows standardised as `WindowDataset` gives them,
`[B, C, T]`, its output logits `[B, K]`.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
from torch import Tensor, nn

from whirl._distribution import install_hint
from whirl.engine.batch import Batch, call_model
from whirl.engine.files import atomic_write

PARITY = 1e-4
"""Largest difference of logits between a network and its export."""

BATCH_SIZES = (1, 7)
"""Sizes at which they are compared: the batch axis must be free."""

OPSET = 18
"""Version of ONNX's operators that exports are written in."""

FACTS_FILE = "whirl.json"
"""Name, within an exported program, of what is to be known about it."""

_MAX_HEADER_BYTES = 2**20
_EXTRA = install_hint("export")


def weights_to_bytes(network: nn.Module) -> bytes:
    """The state of a network, weights and buffers, as a safetensors file: numbers by name and no code.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: a number is not finite.

    Example:
        >>> network = nn.Linear(2, 1)
        >>> other = nn.Linear(2, 1)
        >>> weights_from_bytes(other, weights_to_bytes(network))
        >>> torch.equal(other.weight, network.weight)
        True
    """
    save, _ = _safetensors()
    state = network.state_dict()
    _check_finite(state)
    # cloned, because safetensors refuses tensors that share memory
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})


def weights_from_bytes(network: nn.Module, data: bytes) -> None:
    """Put weights of `weights_to_bytes` into a network; the bytes may come from anybody.

    Args:
        network: changed in place, and only if everything fits.
        data: a safetensors file.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the bytes are no such file, hold other names, shapes or types of numbers than the network, or
            numbers that are not finite.
    """
    _, load = _safetensors()
    state = network.state_dict()
    _check_header(data)
    try:
        tensors = load(data)
    except Exception as error:
        raise ValueError(f"not a safetensors file ({error})") from None
    _check_fit(tensors, state)
    _check_finite(tensors)
    network.load_state_dict(tensors)


def most_weight_bytes(network: nn.Module) -> int:
    """Size in bytes that a file of the network's weights cannot exceed."""
    return 8 + _MAX_HEADER_BYTES + sum(tensor.nbytes for tensor in network.state_dict().values())


def _safetensors() -> tuple[Callable[[dict[str, Tensor]], bytes], Callable[[bytes], dict[str, Tensor]]]:
    try:
        from safetensors.torch import load, save
    except ImportError:
        raise ImportError(f"bundles need safetensors: {_EXTRA}") from None
    return save, load


def _check_header(data: bytes) -> None:
    """Refuse a header that would cost time and memory to read; safetensors itself allows 100 MB."""
    stated = int.from_bytes(data[:8], "little")
    if len(data) < 8 or stated > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"not a safetensors file (its {len(data)} bytes begin with a header of {stated})")


def _check_fit(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    strange = sorted(tensors.keys() ^ state.keys())
    if strange:
        whose = "the network has no" if strange[0] in tensors else "the file has no"
        raise ValueError(f"holds another network: {whose} {strange[0]!r:.100}")
    for name, expected in state.items():
        found = tensors[name]
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise ValueError(
                f"holds another network: {name!r} is {found.dtype} {list(found.shape)}, "
                f"expected {expected.dtype} {list(expected.shape)}"
            )


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name!r} holds numbers that are not finite")


def export_onnx(network: nn.Module, windows: Batch, path: str | Path, facts: Mapping[str, str]) -> float:
    """Write a network as ONNX, if onnxruntime gets the same logits from the file.

    The graph's input is `signals`, float32 `[batch, C, T]`, its output `logits`, `[batch, K]`; the batch may have any
    size, C and T are those of `windows`.

    Args:
        network: takes signals `[B, C, T]`; it stays as it is.
        windows: real ones to compare with, standardised, `[N, C, T]`; none of them is kept in the file.
        path: file to write; it appears whole, or not at all.
        facts: what to put into the model's `metadata_props`.

    Returns:
        The largest difference of logits that was found.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: torch cannot capture the network or ONNX not express it, or the logits differ by `PARITY` or more;
            nothing is written then.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"exporting ONNX needs {error.name}: {_EXTRA}") from None
    program = _capture(network, windows, path)
    with _as_refusal(f"{path}: not written; ONNX cannot express the network"):
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["signals"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
        model = converted.model_proto  # pyright: ignore[reportOptionalMemberAccess]
        onnx.helper.set_model_props(model, dict(facts))
        data = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(signals: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"signals": signals.numpy()})[0])

    return _write_if_equal(network, run, windows, path, data)


def export_program(network: nn.Module, windows: Batch, path: str | Path, facts: Mapping[str, str]) -> float:
    """Write a network as torch's exported program (`.pt2`), if the file, loaded again, gives the same logits.

    Input, output and arguments are those of `export_onnx`; `facts` go, as JSON, into the extra file `FACTS_FILE`.

    Returns:
        The largest difference of logits that was found.

    Raises:
        ValueError: torch cannot capture the network, or the logits differ by `PARITY` or more; nothing is written then.
    """
    program = _capture(network, windows, path)
    with _as_refusal(f"{path}: not written; torch cannot save the network"):
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={FACTS_FILE: json.dumps(dict(facts))})
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
    return _write_if_equal(network, loaded, windows, path, buffer.getvalue())


def _capture(network: nn.Module, windows: Batch, path: str | Path) -> torch.export.ExportedProgram:
    """The network's graph over signals alone, with a free batch axis."""
    # Captured from a copy, into whose caches the capture may write; in plain memory order, as files want it.
    plain = copy.deepcopy(network).cpu().eval()
    plain.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    # The file keeps its examples: zeros tell nothing of anybody's machine.
    examples = (torch.zeros_like(windows.signals[:1]).repeat(2, 1, 1),)
    batch = torch.export.Dim("batch", min=1)
    with _as_refusal(f"{path}: not written; torch cannot capture the network as a graph"), torch.no_grad():
        plain(*examples)  # fills caches with real tensors; capturing would leave others there, for good
        program = torch.export.export(plain, examples, dynamic_shapes=({0: batch},), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # would tell the folders of this machine
    return program


@contextmanager
def _as_refusal(what: str) -> Iterator[None]:
    """Whatever goes wrong in torch's exporters becomes one line; what they say about themselves is not heard."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # where torch.export prints half a graph
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        raise ValueError(f"{what} ({textwrap.shorten(f'{type(error).__name__}: {error}', 300)})") from error
    finally:
        log.setLevel(level)


def _write_if_equal(
    network: nn.Module, exported: Callable[[Tensor], Tensor], windows: Batch, path: str | Path, data: bytes
) -> float:
    """Write `data`, from which `exported` was loaded, if it agrees with the network; return by how much it differs."""
    network = copy.deepcopy(network).cpu().eval()
    difference = max(_largest_difference(network, exported, windows, size, path) for size in BATCH_SIZES)
    with atomic_write(path) as file:
        file.write(data)
    return difference


@torch.no_grad()
def _largest_difference(
    network: nn.Module, exported: Callable[[Tensor], Tensor], windows: Batch, size: int, path: str | Path
) -> float:
    largest = 0.0
    for rows in torch.arange(len(windows.signals)).split(size):
        metadata = {name: values[rows] for name, values in windows.metadata.items()}
        batch = Batch(windows.signals[rows], windows.targets[rows], metadata)
        differences = (call_model(network, batch) - exported(batch.signals)).abs()
        worst = differences.max().item()
        if not worst < PARITY:  # NaN is not
            row, label = divmod(int(differences.argmax()), differences.shape[1])
            where = ", ".join(f"{name} {values[row].item():g}" for name, values in metadata.items())
            raise ValueError(
                f"{path}: not written; its logits are not the network's: in a batch of {len(rows)} they differ by "
                f"{worst:.3g}, at window {int(rows[row])} ({where}), class {label}; allowed is {PARITY:g}"
            )
        largest = max(largest, worst)
    return largest
