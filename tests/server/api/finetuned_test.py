"""The real binary as a process: a client made only from reflection, its start, its errors, its end."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

BINARY = os.path.join(os.environ["FINETUNED_BIN_DIR"], "finetuned")
SERVICE = "finetuned.v1.FineTuningService"


class Client:
    """Calls any method by name; messages come from the server's own reflection."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.service = self.pool.FindServiceByName(SERVICE)

    def call(self, name, timeout=20, **fields):
        method = self.service.FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)(**fields)
        answer = message_factory.GetMessageClass(method.output_type)
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        return make(f"/{SERVICE}/{name}", request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=answer.FromString)(request, timeout=timeout)

    def health(self):
        # HealthCheckResponse: field 1, 1 = SERVING, 2 = NOT_SERVING.
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        return check(b"", timeout=10)


class Server(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="finetuned-test-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        os.makedirs(f"{self.dir}/models/tiny")
        os.makedirs(f"{self.dir}/data")
        with open(f"{self.dir}/models/tiny/config.json", "w") as file:
            file.write("{}")
        with open(f"{self.dir}/data/a.jsonl", "w") as file:
            file.write('{"text": "a"}\n')
        # A worker that knows no GPU (an empty answer to QueryRequest.kind DEVICES, bytes 08 04) and answers nothing else:
        # jobs stay VALIDATING.
        self.worker = f"{self.dir}/worker"
        with open(self.worker, "w") as file:
            file.write("#!/bin/sh\ncase $(od -An -tx1 | tr -d ' \\n') in 0804*) exit 0;; esac\nexec sleep 20\n")
        os.chmod(self.worker, 0o755)
        self.address = f"unix:{self.dir}/api.sock"

    def start(self, *extra, data="state", wait=True, listen=None, environment=None):
        """Starts the binary; its log is read to the line that says it serves."""
        command = [BINARY, "--data-dir", f"{self.dir}/{data}", "--listen", listen or self.address, "--metrics-listen",
                   "127.0.0.1:0", "--model-root", f"{self.dir}/models", "--data-root", f"{self.dir}/data", "--worker",
                   self.worker, "--log-format", "json", *extra]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
        self.addCleanup(lambda: (process.kill(), process.wait(), process.stderr.close()))
        if wait:
            for line in process.stderr:
                text = json.loads(line)["text"]
                found = re.search(r"serves on (\S+), metrics on port (\d+)", text)
                if found:
                    return process, found.group(1), int(found.group(2))
            self.fail(f"the server ended with {process.wait()}: {text}")
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors

    def create(self, client, **fields):
        request = {"spec": {"model_name_or_path": "tiny", "dataset": {"path": ["a.jsonl"]}}, **fields}
        return client.call("CreateJob", **request)

    def test_a_client_from_reflection_alone(self):
        _, address, _ = self.start(listen="127.0.0.1:0")
        client = Client(address)
        self.assertEqual(client.health(), b"\x08\x01")
        first = self.create(client, request_id="one")
        self.assertEqual(self.create(client, request_id="one").job_id, first.job_id)
        with self.assertRaises(grpc.RpcError) as raised:
            self.create(client, request_id="one", spec={"model_name_or_path": "other", "dataset": {"path": ["a.jsonl"]}})
        self.assertIn(raised.exception.code(), (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND))
        self.assertEqual([job.job_id for job in client.call("ListJobs").jobs], [first.job_id])
        client.call("CancelJob", job_id=first.job_id)
        events = list(client.call("WatchJob", job_id=first.job_id))
        self.assertEqual([event.seq for event in events], list(range(1, len(events) + 1)))
        self.assertEqual(list(client.call("WatchJob", job_id=first.job_id, after_seq=events[-2].seq)), events[-1:])

    def test_errors_carry_google_rpc_status(self):
        _, address, _ = self.start()
        client = Client(address)
        for fields, code, texts in (
                ({"spec": {"model_name_or_path": "tiny", "learning_rate": 5, "dataset": {"path": ["a.jsonl"]}}},
                 grpc.StatusCode.INVALID_ARGUMENT, ["learning_rate", "5e-05"]),
                ({"spec": {"model_name_or_path": "missing", "dataset": {"path": ["a.jsonl"]}}},
                 None, ["missing"]),
                ({"spec": {"model_name_or_path": "../etc", "dataset": {"path": ["a.jsonl"]}}}, None, ["../etc"]),
        ):
            with self.assertRaises(grpc.RpcError) as raised:
                client.call("CreateJob", **fields)
            error = raised.exception
            print(error.code(), error.details())
            if code:
                self.assertEqual(error.code(), code)
            trailer = dict(error.trailing_metadata())["grpc-status-details-bin"]
            for text in (b"google.rpc.BadRequest", b"google.rpc.ErrorInfo"):
                self.assertIn(text, trailer)
            self.assertIn(texts[0], error.details())
        with self.assertRaises(grpc.RpcError) as raised:
            client.call("GetJob", job_id="nothing")
        self.assertIn(b"JOB_NOT_FOUND", dict(raised.exception.trailing_metadata())["grpc-status-details-bin"])

    def test_shutdown_in_order(self):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notify.close)
        notify.bind(f"{self.dir}/notify")
        notify.settimeout(10)
        process, address, _ = self.start(environment={"NOTIFY_SOCKET": f"{self.dir}/notify"})
        self.assertIn(b"READY=1", notify.recv(200))
        client = Client(address)
        job = self.create(client)
        watch = client.call("WatchJob", job_id=job.job_id, timeout=60)
        seq = next(watch).seq
        process.send_signal(signal.SIGTERM)
        with self.assertRaises(grpc.RpcError) as raised:
            for event in watch:
                seq = event.seq
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertIn(f"resume with after_seq={seq}", raised.exception.details())
        self.assertEqual(process.wait(timeout=30), 0)
        self.assertIn(b"STOPPING=1", notify.recv(200))
        # The job is there after a restart, and the watch goes on where it stopped.
        _, address, _ = self.start()
        client = Client(address)
        self.assertEqual(client.call("GetJob", job_id=job.job_id).job_id, job.job_id)
        client.call("CancelJob", job_id=job.job_id)
        self.assertEqual(next(client.call("WatchJob", job_id=job.job_id, after_seq=seq)).seq, seq + 1)

    def test_a_killed_server_comes_back(self):
        process, address, _ = self.start()
        job = self.create(Client(address))
        process.kill()
        process.wait()
        # The socket file it left behind is replaced.
        _, address, _ = self.start()
        self.assertEqual(Client(address).call("GetJob", job_id=job.job_id).job_id, job.job_id)

    def test_what_cannot_start_says_why(self):
        _, address, port = self.start(listen="127.0.0.1:0")
        code, errors = self.start(wait=False)
        self.assertEqual(code, 1)
        self.assertIn("in use by another finetuned", errors)
        self.assertIn("--data-dir", errors)
        code, errors = self.start(wait=False, data="other", listen=address)
        self.assertEqual(code, 1)
        self.assertIn(address, errors)
        self.assertIn("--listen", errors)
        code, errors = self.start("--metrics-listen", f"127.0.0.1:{port}", wait=False, data="other")
        self.assertEqual(code, 1)
        self.assertIn("--metrics-listen", errors)
        code, errors = self.start(wait=False, listen="0.0.0.0:0")
        self.assertEqual(code, 2)
        self.assertIn("--insecure", errors)
        # The first goes on.
        self.assertEqual(Client(address).health(), b"\x08\x01")

    def test_idle_server(self):
        process, address, port = self.start()
        client = Client(address)
        client.call("ListJobs")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read()
        check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
        self.assertEqual(check.returncode, 0, check.stderr + check.stdout)
        def cpu():
            with open(f"/proc/{process.pid}/stat") as file:
                fields = file.read().rsplit(") ", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        time.sleep(1)
        before = cpu()
        time.sleep(5)
        share = (cpu() - before) / os.sysconf("SC_CLK_TCK") / 5
        with open(f"/proc/{process.pid}/status") as file:
            resident = int(re.search(r"VmRSS:\s+(\d+) kB", file.read()).group(1)) / 1024
        print(f"idle server: {resident:.1f} MB resident, {share:.2%} of a processor")
        self.assertLess(resident, 60)
        self.assertLess(share, 0.02)

    def test_sighup_reads_the_log_level_again(self):
        path = f"{self.dir}/finetuned.yaml"
        with open(path, "w") as file:
            file.write("log-level: info\n")
        process, _, _ = self.start("--config", path)
        for text, expected in (("log-level: debug\n", "log-level is debug"), ("log-level: loud\n", "log-level is 'loud'")):
            with open(path, "w") as file:
                file.write(text)
            process.send_signal(signal.SIGHUP)
            while expected not in (line := process.stderr.readline()):
                self.assertTrue(line)

    def test_commands(self):
        def run(*args):
            return subprocess.run([BINARY, *args], capture_output=True, text=True)
        self.assertRegex(run("version").stdout, r"^finetuned \d+\.\d+\.\d+\n$")
        self.assertIn("Example:", run("--help").stdout)
        self.assertIn('data-dir: "/srv/x"  # flag', run("config", "--data-dir", "/srv/x").stdout)
        check = run("check", "--data-dir", f"{self.dir}/state", "--worker", "/bin/false")
        self.assertEqual(check.returncode, 1)
        self.assertIn("ERROR  worker", check.stdout)
        wrong = run("--lisen", "x")
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("did you mean --listen?", wrong.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
