"""What the end-to-end tests share: a client made from the .proto files alone, a small model, the three binaries as a service."""
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import grpc
import torch
from transformers import LlamaConfig, LlamaForCausalLM

SOURCE = pathlib.Path(os.environ["FINETUNED_SOURCE_DIR"])
BIN = pathlib.Path(os.environ["FINETUNED_BIN_DIR"])


def api(directory):
    """A client made from the .proto files alone."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCE}/proto", f"--python_out={directory}",
                    f"--grpc_python_out={directory}"] + [f"finetuned/v1/{name}.proto" for name in
                                                        ("options", "job_spec", "types", "service")], check=True)
    sys.path.insert(0, str(directory))
    return [importlib.import_module(f"finetuned.v1.{name}") for name in ("service_pb2", "service_pb2_grpc", "types_pb2")]


def make_model(out, **changes):
    """A small random Llama with SmolLM2's tokenizer, so that a step takes a fraction of a second. → the transformers model."""
    demo = out.with_name("demo-model")
    subprocess.run([sys.executable, SOURCE / "docker/make_demo_model.py", "--out", demo], check=True, stdout=subprocess.DEVNULL)
    torch.manual_seed(1)
    config = dict(vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True)
    model = LlamaForCausalLM(LlamaConfig(**(config | changes)))
    model.save_pretrained(out)
    for file in demo.iterdir():
        if file.name.startswith(("tokenizer", "special", "generation", "chat_template")):
            shutil.copy(file, out)
    shutil.rmtree(demo)
    return model


class Service:
    def __init__(self, directory):
        self.directory, self.process, self.port = directory, None, None
        self.data_dir = directory / "data"

    def start(self, metrics="off"):
        log = open(self.directory / "server.log", "ab")
        # Port 0: the system chooses one, and the log says which.
        before = (self.directory / "server.log").stat().st_size
        self.process = subprocess.Popen([BIN / "finetuned", "--data-dir", self.data_dir, "--listen", "127.0.0.1:0",
                                         "--metrics-listen", metrics, "--model-root", self.directory / "models",
                                         "--data-root", self.directory / "datasets"], stdout=log, stderr=log)
        for _ in range(300):
            text = (self.directory / "server.log").read_bytes()[before:].decode()
            if " serves on 127.0.0.1:" in text:
                self.port = int(text.split(" serves on 127.0.0.1:")[1].split(",")[0])
                if metrics != "off":
                    self.metrics_port = int(text.split(", metrics on port ")[1].split(",")[0])
                return
            assert self.process.poll() is None, text
            time.sleep(0.1)
        raise TimeoutError("the server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def channel(self):
        return grpc.insecure_channel(f"127.0.0.1:{self.port}")
