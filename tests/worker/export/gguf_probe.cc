// GGUF export on the command line, for comparisons with the Python stack.
//
//   gguf_probe MODEL_DIR OUT.gguf TYPE [PROVENANCE_JSON]   writes and checks; prints notes, bytes
//   and the error as JSON gguf_probe --check MODEL_DIR FILE.gguf TYPE [PROVENANCE_JSON] gguf_probe
//   --encode TYPE                               fp32 numbers on stdin → encoded bytes on stdout
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "worker/export/gguf.h"

namespace finetuned {
namespace {

int Fail(const absl::Status& status) {
  std::cerr << "gguf_probe: " << status << "\n";
  return 1;
}

int Encode(const std::string& type_name) {
  const auto type = ParseGgufType(type_name);
  if (!type.ok()) return Fail(type.status());
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  const auto n = static_cast<int64_t>(input.size() / sizeof(float));
  std::vector<char> out(static_cast<size_t>(GgufBytes(*type, n)));
  EncodeGguf(*type, reinterpret_cast<const float*>(input.data()), n, out.data());
  std::cout.write(out.data(), static_cast<std::streamsize>(out.size()));
  return 0;
}

int Main(std::vector<std::string> arguments) {
  if (arguments.size() == 2 && arguments[0] == "--encode") return Encode(arguments[1]);
  const bool only_check = !arguments.empty() && arguments[0] == "--check";
  if (only_check) arguments.erase(arguments.begin());
  if (arguments.size() < 3) {
    std::cerr << "usage: gguf_probe [--check] MODEL_DIR FILE.gguf TYPE [PROVENANCE_JSON]\n";
    return 2;
  }
  const auto type = ParseGgufType(arguments[2]);
  if (!type.ok()) return Fail(type.status());
  GgufRequest request{arguments[0], arguments[1], *type, nullptr};
  if (arguments.size() > 3) request.provenance = nlohmann::json::parse(arguments[3]);
  nlohmann::json result;
  if (!only_check) {
    const auto report = WriteGguf(request, nullptr, nullptr);
    if (!report.ok()) return Fail(report.status());
    result = {{"tensors", report->tensors}, {"bytes", report->bytes}, {"notes", report->notes}};
  }
  const auto check = CheckGguf(request);
  if (!check.ok()) return Fail(check.status());
  result["max_relative_error"] = check->max_relative_error;
  std::cout << result.dump() << "\n";
  return 0;
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) { return finetuned::Main({argv + 1, argv + argc}); }
