// finetune-worker: one attempt of a job (run), or a question about one (query). Started by the server; see
// proto/finetuned/v1/worker.proto. Scripts start it for its text modes; see worker/job/text_modes.h.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "finetuned/v1/worker.pb.h"
#include "proto/base/file_util.h"
#include "worker/job/attempt.h"
#include "worker/job/text_modes.h"

namespace finetuned {
namespace {

constexpr char kUsage[] =
    "finetune-worker: does the work of one job attempt; the server starts it.\n\n"
    "usage:\n"
    "  finetune-worker run      one attempt; reads FINETUNED_PLAN (a file holding an AttemptPlan), FINETUNED_WORKER_SOCKET and\n"
    "                           FINETUNED_ATTEMPT_TOKEN\n"
    "  finetune-worker query    a QueryRequest (binary proto) on standard input, the QueryResponse on standard output\n"
    "  finetune-worker tokenize, detokenize, render\n"
    "                           tokenizer and chat template in a pipe, for scripts; each has --help\n"
    "  finetune-worker version\n\n"
    "example: FINETUNED_PLAN=plan.pb finetune-worker run\n";

Reporter* running = nullptr;
void OnTerminate(int) {
  if (running != nullptr) running->RequestPause();
}

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int Run() {
  const std::string plan_path = Environment("FINETUNED_PLAN");
  const absl::StatusOr<std::string> bytes = ReadFile(plan_path);
  v1::AttemptPlan plan;
  if (!bytes.ok() || !plan.ParseFromString(*bytes)) {
    std::cerr << "finetune-worker: FINETUNED_PLAN=" << plan_path << " is no readable AttemptPlan: "
              << (bytes.ok() ? "not a protobuf" : std::string(bytes.status().message())) << "\n";
    return 2;
  }
  const std::string attempt_dir = plan.job_dir() + "/attempt-" + std::to_string(plan.attempt());
  ReporterOptions options;
  options.spool_path = attempt_dir + "/spool.pb";
  options.socket = Environment("FINETUNED_WORKER_SOCKET");
  options.token = Environment("FINETUNED_ATTEMPT_TOKEN");
  options.job_id = plan.job_id();
  options.attempt = plan.attempt();
  options.runtime_limit_seconds = plan.runtime_left_seconds();
  absl::StatusOr<std::unique_ptr<Reporter>> reporter = Reporter::Start(options);
  if (!reporter.ok()) {
    std::cerr << "finetune-worker: " << reporter.status().message() << "\n";
    return 1;
  }
  running = reporter->get();
  struct sigaction action = {};
  action.sa_handler = OnTerminate;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);

  if (plan.cpu_threads() > 0) at::set_num_threads(plan.cpu_threads());
  // Two runs give equal bits; cuBLAS needs its workspace fixed for that.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  // Not warn_only: with it FlashAttention's backward keeps its non-deterministic algorithm.
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  // The allocator's statistics are read before the first tensor is on the device.
  if (plan.device() != "cpu") at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);

  v1::AttemptEnd end = RunAttempt(plan, **reporter);
  const bool failed = end.outcome() == v1::AttemptEnd::FAILED;
  if (failed) {
    std::cerr << "ERROR " << v1::FailureReason_Name(end.failure().reason()) << " in stage " << v1::Stage_Name(end.failure().stage()) << ": "
              << end.failure().message() << "\n";
  }
  (*reporter)->End(std::move(end), std::chrono::seconds(30));
  running = nullptr;
  reporter->reset();
  return failed ? 1 : 0;
}

int Query() {
  const std::string input((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  v1::QueryRequest request;
  if (!request.ParseFromString(input)) {
    std::cerr << "finetune-worker query: standard input is no QueryRequest\n";
    return 2;
  }
  if (!AnswerQuery(request).SerializeToOstream(&std::cout)) return 1;
  std::cout.flush();
  return 0;
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  int code = 2;
  if (mode == "run") {
    code = finetuned::Run();
  } else if (mode == "query") {
    code = finetuned::Query();
  } else if (finetuned::IsTextMode(mode)) {
    code = finetuned::RunTextMode(mode, std::vector<std::string>(argv + 2, argv + argc), STDIN_FILENO, STDOUT_FILENO);
  } else if (mode == "version" || mode == "--version") {
    std::cout << "finetune-worker " << FINETUNED_VERSION << "\n";
    code = 0;
  } else {
    (mode == "--help" || mode == "help" ? std::cout : std::cerr) << finetuned::kUsage;
    code = mode == "--help" || mode == "help" ? 0 : 2;
  }
  std::cout.flush();
  std::fflush(nullptr);
  // LibTorch's static destructors are slow and can deadlock with its thread pools; everything durable is on disk.
  std::_Exit(code);
}
