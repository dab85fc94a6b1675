"""The service as somebody else's platform uses it: a gRPC client made from the .proto files alone submits, watches from a
sequence number, loses its connection and goes on without a gap, and cancels; a real Prometheus with deploy/prometheus scrapes it.

    clients.py
"""
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

import grpc

from service import SOURCE, Service, api, make_model


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="finetuned-platform-"))
    pb, rpc, types = api(directory)
    make_model(directory / "models/tiny")
    (directory / "datasets").mkdir()
    with open(directory / "datasets/train.jsonl", "w") as file:
        for i in range(200):
            file.write(json.dumps({"instruction": f"what is {i} plus {i}?", "response": f"{i} plus {i} is {i + i}."}) + "\n")
    service = Service(directory)
    service.start(metrics="127.0.0.1:0")

    # Prometheus, as deploy/ configures it but for the address.
    shutil.copytree(SOURCE / "deploy/prometheus", directory / "prometheus")
    config = directory / "prometheus/prometheus.yml"
    text = config.read_text()
    assert "127.0.0.1:9464" in text, text
    config.write_text(text.replace("127.0.0.1:9464", f"127.0.0.1:{service.metrics_port}").replace("15s", "1s"))
    page = urllib.request.urlopen(f"http://127.0.0.1:{service.metrics_port}/metrics", timeout=10).read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr.decode()
    print("promtool check metrics: clean", flush=True)
    log = open(directory / "prometheus.log", "wb")
    prometheus = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/tsdb",
                                   "--web.listen-address=127.0.0.1:19464"], stdout=log, stderr=log)

    def query(expression):
        try:
            url = "http://127.0.0.1:19464/api/v1/query?query=" + urllib.parse.quote(expression)
            return [float(entry["value"][1]) for entry in json.load(urllib.request.urlopen(url, timeout=5))["data"]["result"]]
        except OSError:
            return []

    def until(expression, right, seconds=60):
        for _ in range(seconds * 4):
            values = query(expression)
            if values and right(values):
                print(f"{expression} = {values}", flush=True)
                return
            time.sleep(0.25)
        raise TimeoutError(f"{expression}: {query(expression)}; {(directory / 'prometheus.log').read_text()[-2000:]}")

    until('up{job="finetuned"}', lambda values: values == [1])

    stub = rpc.FineTuningServiceStub(service.channel())
    request = pb.CreateJobRequest(request_id="platform-1", labels={"team": "speech"})
    request.spec.model_name_or_path, request.spec.max_seq_length, request.spec.max_steps = "tiny", 128, 100000
    request.spec.dataset.path.append("train.jsonl")
    request.spec.per_device_train_batch_size.value = request.spec.gradient_accumulation_steps.value = 1
    job_id = stub.CreateJob(request, timeout=30).job_id
    assert stub.CreateJob(request, timeout=30).job_id == job_id, "the same request_id makes another job"
    seen = []
    for event in stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=120):
        seen.append(event.seq)
        if event.HasField("metrics") and event.metrics.step >= 5:
            break
    until("sum(finetuned_jobs{state=\"RUNNING\"})", lambda values: values == [1])
    service.kill()  # and with it the connection; the worker goes on
    until('up{job="finetuned"}', lambda values: values == [0])
    service.start(metrics=f"127.0.0.1:{service.metrics_port}")
    until('up{job="finetuned"}', lambda values: values == [1])
    stub = rpc.FineTuningServiceStub(service.channel())
    cancelled = False
    for event in stub.WatchJob(pb.WatchJobRequest(job_id=job_id, after_seq=seen[-1]), timeout=120):
        seen.append(event.seq)
        if not cancelled and event.HasField("metrics") and event.metrics.step >= 20:
            stub.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=10)
            cancelled = True
    assert seen == list(range(1, len(seen) + 1)), "a gap or a repeat in seq"
    job = stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=10)
    assert job.state == types.CANCELLED, job
    print(f"watched {len(seen)} events over a kill of the server without gap or repeat; the stream ended with the job: cancelled", flush=True)
    until('sum(finetuned_jobs_finished_total{state="CANCELLED"})', lambda values: values == [1])
    prometheus.terminate()
    prometheus.wait()
    service.stop()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
