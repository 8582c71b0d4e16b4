"""Export of trained networks: weights without code, ONNX, and exported programs of torch.

An exported graph is written only if its logits on given windows differ from those of the network by less than `PARITY`.
The graph contains only the network: its input are standardized windows `[B, C, T]`, as from `WindowDataset`, its output
logits `[B, K]`.
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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whirl._distribution import install_hint
from whirl.engine.batch import Batch, call_model
from whirl.engine.files import atomic_write
from whirl.models.heads import ScaledOutput

PARITY = 1e-4
"""Upper bound of the difference between the logits of a network and of its export; for a predicted number, of the
difference in standard deviations of its training targets."""

BATCH_SIZES = (1, 7)
"""Batch sizes at which logits are compared, since the batch axis must be dynamic."""

OPSET = 18
"""ONNX operator set version of exports."""

METADATA_FILE = "whirl.json"
"""Name of the file with metadata in an exported program."""

_MAX_HEADER_BYTES = 2**20
_EXTRA = install_hint("export")


def weights_to_bytes(network: nn.Module) -> bytes:
    """Serialize the state dict of a network in the safetensors format, which contains no code.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: a value is not finite.

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
    # cloned, since safetensors rejects tensors that share memory
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})


def weights_from_bytes(network: nn.Module, data: bytes) -> None:
    """Load weights from `weights_to_bytes` into a network; the bytes may come from an untrusted source.

    Args:
        network: network to change in place; it is unchanged if an error is raised.
        data: content of a safetensors file.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the bytes are not a safetensors file, names, shapes or data types differ from those of the network,
            or a value is not finite.
    """
    _, load = _safetensors()
    state = network.state_dict()
    _check_header(data)
    try:
        tensors = load(data)
    except Exception as error:
        raise ValueError(f"not a safetensors file ({error})") from None
    _check_state(tensors, state)
    _check_finite(tensors)
    network.load_state_dict(tensors)


def arrays_to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Serialize arrays of numbers in the safetensors format, which contains no code.

    Raises:
        ImportError: safetensors is not installed.

    Example:
        >>> arrays_from_bytes(arrays_to_bytes({"a": np.arange(3)}))["a"].tolist()
        [0, 1, 2]
    """
    save, _ = _safetensors()
    return save({name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()})


def arrays_from_bytes(data: bytes) -> dict[str, NDArray[Any]]:
    """Load what `arrays_to_bytes` returned; the bytes may come from an untrusted source.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the bytes are not a safetensors file, or a number is not finite.
    """
    _, load = _safetensors()
    _check_header(data)
    try:
        tensors = load(data)
    except Exception as error:
        raise ValueError(f"not a safetensors file ({error})") from None
    _check_finite(tensors)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def max_weight_bytes(network: nn.Module) -> int:
    """Return the maximum size in bytes of a file with the weights of a network."""
    return 8 + _MAX_HEADER_BYTES + sum(tensor.nbytes for tensor in network.state_dict().values())


def _safetensors() -> tuple[Callable[[dict[str, Tensor]], bytes], Callable[[bytes], dict[str, Tensor]]]:
    try:
        from safetensors.torch import load, save
    except ImportError:
        raise ImportError(f"bundles require safetensors; install it with: {_EXTRA}") from None
    return save, load


def _check_header(data: bytes) -> None:
    """Raise if the header is too large, which would cost time and memory; safetensors itself allows 100 MB."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"not a safetensors file (it has {len(data)} bytes and a header of {size})")


def _check_state(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    different = sorted(tensors.keys() ^ state.keys())
    if different:
        lacking = "the network" if different[0] in tensors else "the file"
        raise ValueError(f"contains the weights of another network: {lacking} has no {different[0]!r:.100}")
    for name, expected in state.items():
        found = tensors[name]
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise ValueError(
                f"contains the weights of another network: {name!r} is {found.dtype} {list(found.shape)}, "
                f"expected {expected.dtype} {list(expected.shape)}"
            )


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name!r} contains values that are not finite")


def export_onnx(network: nn.Module, windows: Batch, path: str | Path, metadata: Mapping[str, str]) -> float:
    """Write a network as an ONNX file, if its logits in onnxruntime match those of the network.

    The input of the graph is `signals`, float32 `[batch, C, T]`, its output `logits`, `[batch, K]`. The batch size is
    dynamic; C and T are those of `windows`.

    Args:
        network: network that takes signals `[B, C, T]`; it is not modified.
        windows: real windows for the comparison, standardized, `[N, C, T]`; they are not stored in the file.
        path: file to write, atomically.
        metadata: content of the model's `metadata_props`.

    Returns:
        The largest difference of logits.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: torch cannot capture the network, ONNX cannot represent it, or the logits differ by `PARITY` or
            more; nothing is written then.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"export to ONNX requires {error.name}; install it with: {_EXTRA}") from None
    program = _capture(network, windows, path)
    with _as_value_error(f"{path}: not written; ONNX cannot represent the network"):
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
        onnx.helper.set_model_props(model, dict(metadata))
        data = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(signals: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"signals": signals.numpy()})[0])

    return _write_if_equal(network, run, windows, path, data)


def export_program(network: nn.Module, windows: Batch, path: str | Path, metadata: Mapping[str, str]) -> float:
    """Write a network as an exported program of torch (`.pt2`), if the logits of the loaded file match.

    Input, output and arguments are those of `export_onnx`; `metadata` is stored as JSON in the extra file
    `METADATA_FILE`.

    Returns:
        The largest difference of logits.

    Raises:
        ValueError: torch cannot capture the network, or the logits differ by `PARITY` or more; nothing is written then.
    """
    program = _capture(network, windows, path)
    with _as_value_error(f"{path}: not written; torch cannot save the network"):
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(dict(metadata))})
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
    return _write_if_equal(network, loaded, windows, path, buffer.getvalue())


def _capture(network: nn.Module, windows: Batch, path: str | Path) -> torch.export.ExportedProgram:
    """Capture the graph of a network that takes only signals, with a dynamic batch axis."""
    # Capture from a copy, since it may write to caches of the network, and in contiguous memory format, for the file.
    plain = copy.deepcopy(network).cpu().eval()
    plain.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    # The file stores the example inputs: zeros disclose no measurements.
    examples = (torch.zeros_like(windows.signals[:1]).repeat(2, 1, 1),)
    batch = torch.export.Dim("batch", min=1)
    with _as_value_error(f"{path}: not written; torch cannot capture the network as a graph"), torch.no_grad():
        plain(*examples)  # fill caches with real tensors; the capture would leave fake ones there
        program = torch.export.export(plain, examples, dynamic_shapes=({0: batch},), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains paths of this machine
    return program


@contextmanager
def _as_value_error(what: str) -> Iterator[None]:
    """Raise any error of torch's exporters as a `ValueError` of one line, and suppress their output."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stderr(io.StringIO()),
        ):  # torch.export prints parts of the graph to stderr
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
    """Write `data`, from which `exported` was loaded, if its logits match those of the network.

    Returns:
        The largest difference of logits.
    """
    network = copy.deepcopy(network).cpu().eval()
    difference = max(_largest_difference(network, exported, windows, size, path) for size in BATCH_SIZES)
    with atomic_write(path) as file:
        file.write(data)
    return difference


def _unit_of(network: nn.Module) -> float:
    """Return the unit of the outputs: the standard deviation of the training targets of a predicted number, else 1."""
    return next((module.scale.item() for module in network.modules() if isinstance(module, ScaledOutput)), 1.0)


@torch.no_grad()
def _largest_difference(
    network: nn.Module, exported: Callable[[Tensor], Tensor], windows: Batch, size: int, path: str | Path
) -> float:
    maximum, unit = 0.0, _unit_of(network)
    for rows in torch.arange(len(windows.signals)).split(size):
        metadata = {name: values[rows] for name, values in windows.metadata.items()}
        batch = Batch(windows.signals[rows], windows.targets[rows], metadata)
        differences = (call_model(network, batch) - exported(batch.signals)).abs() / unit
        largest = differences.max().item()
        if not largest < PARITY:  # also if NaN
            row, label = divmod(int(differences.argmax()), differences.shape[1])
            where = ", ".join(f"{name} {values[row].item():g}" for name, values in metadata.items())
            raise ValueError(
                f"{path}: not written; its logits differ from the network's by {largest:.3g} (allowed: {PARITY:g}), in "
                f"a batch of {len(rows)}, at window {int(rows[row])} ({where}), class {label}"
            )
        maximum = max(maximum, largest)
    return maximum
