"""Serve an exported model over HTTP: ONNX Runtime behind the KServe v2 inference protocol.

    python examples/serve.py model.onnx --name digits --port 8080

The protocol is MLServer's (https://mlserver.readthedocs.io), the model ONNX Runtime's; this file
only joins the two. Needs the extra `serve`: pip install 'cerewrite[serve]'.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

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
        """Answer one request; the session runs in a thread, so that others are accepted."""
        feed = {item.name: NumpyCodec.decode_input(item) for item in payload.inputs}
        try:
            arrays = await asyncio.to_thread(self.session.run, None, feed)
        except Exception as error:
            raise InferenceError(f"{self.name}: {error}") from None
        names = [output.name for output in self.outputs]
        outputs = [NumpyCodec.encode_output(*pair) for pair in zip(names, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def tensor(value: Any) -> MetadataTensor:
    """What the protocol says about a tensor; an axis that varies is -1."""
    shape = [size if isinstance(size, int) else -1 for size in value.shape]
    return MetadataTensor(name=value.name, datatype=TYPES[value.type], shape=shape)


def main() -> None:
    """Read the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the ONNX file")
    parser.add_argument("--name", default="model", help="name under which it is served")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="of HTTP")
    parser.add_argument("--grpc-port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, per request")
    given = parser.parse_args()
    settings = Settings(
        debug=False,
        host=given.host,
        http_port=given.port,
        grpc_port=given.grpc_port,
        parallel_workers=0,
        metrics_endpoint=None,
    )
    parameters = ModelParameters(uri=given.model, extra={"threads": given.threads})
    model = ModelSettings(name=given.name, implementation=OnnxModel, parameters=parameters)
    asyncio.run(serve(settings, model))


async def serve(settings: Settings, model: ModelSettings) -> None:
    """Serve one model; the server answers interrupts on the loop in which it was made."""
    await MLServer(settings).start([model])


if __name__ == "__main__":
    main()
