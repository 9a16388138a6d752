"""Serve an exported model over HTTP: ONNX Runtime behind the KServe v2 inference protocol.

    python examples/serve.py model.onnx --name digits --port 8080

The protocol is MLServer's (https://mlserver.readthedocs.io), the model ONNX Runtime's; this file
only joins the two. Needs the extra `serve`: pip install 'cerewrite[serve]'.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.errors import InferenceError, MLServerError
from mlserver.settings import ModelParameters
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    RequestInput,
    ResponseOutput,
)

MIB = 2**20
MOST_THREADS = 256

TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(int8)": "INT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}


NUMPY: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


class OnnxModel(MLModel):
    """An ONNX file; names, types and shapes of its tensors are the file's own."""

    async def load(self) -> bool:
        """Open the file that the settings name."""
        parameters = self.settings.parameters
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = parameters.extra["threads"]
        self.session = onnxruntime.InferenceSession(
            parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [tensor(value) for value in self.session.get_inputs()]
        self.outputs = [tensor(value) for value in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request; the session runs in a thread, so that others are accepted.

        Raises:
            InferenceError: whatever is wrong with the request (status 400).
        """
        names = [output.name for output in self.outputs]
        wanted = [item.name for item in payload.outputs or ()] or names
        feed = {item.name: array_of(item, self._input(item.name)) for item in payload.inputs}
        missing = {item.name for item in self.inputs} - feed.keys()
        if missing or len(feed) < len(payload.inputs) or not set(wanted) <= set(names):
            raise InferenceError(
                f"{self.name}: takes the inputs {[item.name for item in self.inputs]}, each once, "
                f"and has the outputs {names}"
            )
        try:
            arrays = await asyncio.to_thread(self.session.run, None, feed)
        except Exception as error:
            raise InferenceError(f"{self.name}: {error}") from None
        held = dict(zip(names, arrays, strict=True))
        outputs = [encoded(name, held[name]) for name in wanted]
        return InferenceResponse(model_name=self.name, outputs=outputs)

    def _input(self, name: str) -> MetadataTensor:
        for item in self.inputs:
            if item.name == name:
                return item
        raise InferenceError(f"{self.name}: has no input '{name}'")


def array_of(item: RequestInput, about: MetadataTensor) -> np.ndarray:
    """The values of one input of a request, which must be what the model takes.

    Raises:
        InferenceError: if type, shape, number or kind of the values is another.
    """
    kind, shape = getattr(item.datatype, "value", item.datatype), list(item.shape)
    if kind != about.datatype:
        raise InferenceError(f"'{item.name}' is {about.datatype}, not {kind}: invalid type")
    axes = len(shape) == len(about.shape)
    if not axes or any(
        size < 0 or fixed not in (-1, size) for size, fixed in zip(shape, about.shape, strict=True)
    ):
        raise InferenceError(f"'{item.name}' is {about.shape}, not {shape}: invalid shape")
    try:
        values = np.asarray(getattr(item.data, "root", item.data))
    except (ValueError, OverflowError, TypeError):
        raise InferenceError(f"'{item.name}': invalid values, or rows of several lengths") from None
    if values.size != math.prod(shape):
        raise InferenceError(f"'{item.name}' holds {values.size} values, not {shape}: invalid")
    target = np.dtype(NUMPY[kind])
    if values.size and values.dtype.kind not in {"f": "iuf", "b": "b"}.get(target.kind, "iu"):
        raise InferenceError(f"'{item.name}': invalid values for {kind}, or null among them")
    if target.kind in "iu" and values.size:
        limits = np.iinfo(target)
        if values.min() < limits.min or values.max() > limits.max:
            raise InferenceError(f"'{item.name}': invalid values, too large for {kind}")
    with np.errstate(over="ignore"):
        return values.astype(target).reshape(shape)


def encoded(name: str, array: np.ndarray) -> ResponseOutput:
    """One output of an answer, of the shape that the model gives."""
    kind = next(key for key, value in NUMPY.items() if array.dtype == value)
    return ResponseOutput(
        name=name, datatype=kind, shape=list(array.shape), data=array.ravel().tolist()
    )


def tensor(value: Any) -> MetadataTensor:
    """What the protocol says about a tensor; an axis that varies is -1."""
    shape = [size if isinstance(size, int) else -1 for size in value.shape]
    return MetadataTensor(name=value.name, datatype=TYPES[value.type], shape=shape)


Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refused(Exception):
    """A request that goes no further: its status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Gate:
    """What every request passes first: its size is limited, binary tensors become JSON.

    Args:
        app: the server behind it.
        limit: bytes that a body may have, unpacked.
    """

    def __init__(self, app: Any, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            body = await self._body(headers, receive)
            body = plain(body, headers.get(b"inference-header-content-length"))
        except Refused as error:
            await answer(send, error.status, str(error))
            return
        dropped = (b"content-length", b"content-encoding", b"inference-header-content-length")
        kept = [pair for pair in scope["headers"] if pair[0].lower() not in dropped]
        kept = [pair for pair in kept if pair[0].lower() != b"content-type"]
        kept += [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        messages: Iterator[Message] = iter([{"type": "http.request", "body": body}])

        async def again() -> Message:
            return next(messages, None) or await receive()

        await self.app({**scope, "headers": kept}, again, send)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        told = headers.get(b"content-length", b"0")
        if not told.isdigit() or int(told) > self.limit:
            raise Refused(413, f"a body may have {self.limit} bytes")
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise Refused(400, "the client went away")
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > self.limit:
                raise Refused(413, f"a body may have {self.limit} bytes")
        return self._unpacked(b"".join(parts), headers.get(b"content-encoding", b"identity"))

    def _unpacked(self, body: bytes, encoding: bytes) -> bytes:
        if encoding == b"identity":
            return body
        if encoding not in (b"gzip", b"deflate"):
            raise Refused(415, "bodies may be packed by gzip or deflate")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            found = unpack.decompress(body, self.limit + 1)
        except zlib.error as error:
            raise Refused(400, f"the body cannot be unpacked: {error}") from None
        if len(found) > self.limit:
            raise Refused(413, f"a body may have {self.limit} bytes, unpacked")
        if not unpack.eof:
            raise Refused(400, "the packed body is cut off")
        return found


def plain(body: bytes, length: bytes | None) -> bytes:
    """A body whose binary tensors, which follow the JSON, are numbers in it.

    Args:
        body: as it was sent.
        length: bytes of the JSON; None for all of them.

    Raises:
        Refused: if the two do not fit.
    """
    if length is None:
        return body
    try:
        ends = int(length)
        request, rest = json.loads(body[:ends]), memoryview(body)[ends:]
        for item in request["inputs"]:
            size = item.get("parameters", {}).pop("binary_data_size", None)
            if size is None:
                continue
            if not 0 <= size <= len(rest):
                raise ValueError(f"'{item['name']}' has {len(rest)} bytes, not {size}")
            item["data"] = np.frombuffer(rest[:size], NUMPY[item["datatype"]]).tolist()
            rest = rest[size:]
        if len(rest):
            raise ValueError(f"{len(rest)} bytes belong to no input")
        return json.dumps(request).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(400, f"invalid binary tensors: {error}") from None


async def answer(send: Send, status: int, error: str) -> None:
    """Answer with an error, in the protocol's form."""
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Read the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the ONNX file")
    parser.add_argument("--name", default="model", help="name under which it is served")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="of HTTP")
    parser.add_argument("--grpc-port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, per request")
    parser.add_argument("--max-body", type=int, default=32, help="MiB that a request may have")
    given = parser.parse_args()
    if not 1 <= given.threads <= MOST_THREADS or given.max_body < 1:
        parser.error(f"--threads: 1 to {MOST_THREADS}; --max-body: at least 1")
    settings = Settings(
        debug=False,
        host=given.host,
        http_port=given.port,
        grpc_port=given.grpc_port,
        parallel_workers=0,
        metrics_endpoint=None,
        grpc_max_message_length=given.max_body * MIB,
    )
    parameters = ModelParameters(uri=given.model, extra={"threads": given.threads})
    model = ModelSettings(name=given.name, implementation=OnnxModel, parameters=parameters)
    asyncio.run(serve(settings, model, given.max_body * MIB))


async def serve(settings: Settings, model: ModelSettings, limit: int) -> None:
    """Serve one model; the server answers interrupts on the loop in which it was made.

    Nobody loads or unloads it from outside, and what streams is not served.
    """
    server = MLServer(settings)
    handlers = server._model_repository_handlers
    handlers.load = handlers.unload = refuse
    app = server._rest_server._app
    app.router.routes[:] = [
        route for route in app.router.routes if "stream" not in getattr(route, "path", "")
    ]
    app.add_middleware(Gate, limit=limit)
    await server.start([model])


async def refuse(name: str) -> bool:
    """The model that is served is the one that the command line names.

    Raises:
        MLServerError: always (status 403).
    """
    raise MLServerError(f"{name}: models are not loaded or unloaded here", 403)


if __name__ == "__main__":
    main()
