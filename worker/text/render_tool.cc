// render_tool TEMPLATE_FILE [--now RFC3339]: renders a chat template for scripts and tests.
// One JSON object of variables a line on standard input; one line of JSON each on standard output
// (see RenderLine). A template that does not parse answers every line with that error. Exit status
// 2: wrong arguments.
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "worker/text/chat_template.h"

int main(int argc, char** argv) {
  absl::Time now = absl::Now();
  std::string error;
  const bool with_now = argc == 4 && std::string(argv[2]) == "--now";
  if ((argc != 2 && !with_now) ||
      (with_now && !absl::ParseTime(absl::RFC3339_full, argv[3], &now, &error))) {
    std::cerr << "usage: render_tool TEMPLATE_FILE [--now 2025-01-31T12:00:00Z]\n" << error << '\n';
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  if (!file) {
    std::cerr << "cannot read " << argv[1] << '\n';
    return 2;
  }
  std::string source((std::istreambuf_iterator<char>(file)), {});
  const auto parsed = finetuned::ChatTemplate::Parse(std::move(source), argv[1]);
  std::string line;
  while (std::getline(std::cin, line)) {
    if (parsed.ok()) {
      std::cout << finetuned::RenderLine(**parsed, line, now) << std::endl;
    } else {
      std::cout << nlohmann::json{{"error", std::string(parsed.status().message())}}.dump()
                << std::endl;
    }
  }
}
