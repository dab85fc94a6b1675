// Tokenizes JSON strings from standard input, one a line, for tests against other implementations.
//
//   tokenize_tool TOKENIZER_JSON [--add-special-tokens] [--offsets] [--decode] < strings.jsonl >
//   ids.jsonl tokenize_tool TOKENIZER_JSON --time THREADS < strings.jsonl     seconds of tokenizing
//   alone, best of three
//
// One line a string: {"ids": [...]}, with --offsets also "offsets": [[begin, end] ...] in bytes,
// with --decode also "text" and "text_without_special".
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "worker/text/tokenizer.h"

namespace {

// Best of three passes over all texts, the threads taking every n-th one.
void Time(const finetuned::Tokenizer& tokenizer, const std::vector<std::string>& texts,
          int threads) {
  double best = 1e30;
  size_t count = 0;
  for (int pass = 0; pass < 3; ++pass) {
    std::vector<size_t> counts(static_cast<size_t>(threads));
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> workers;
    for (int worker = 0; worker < threads; ++worker) {
      workers.emplace_back([&, worker] {
        for (size_t i = static_cast<size_t>(worker); i < texts.size();
             i += static_cast<size_t>(threads)) {
          counts[static_cast<size_t>(worker)] += tokenizer.Encode(texts[i], false).size();
        }
      });
    }
    for (std::thread& worker : workers) worker.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
    count = 0;
    for (size_t n : counts) count += n;
  }
  std::printf("{\"seconds\": %.6f, \"tokens\": %zu}\n", best, count);
}

}  // namespace

int main(int argc, char** argv) {
  bool add_special = false, offsets = false, decode = false;
  int time_threads = 0;
  for (int i = 2; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--add-special-tokens") {
      add_special = true;
    } else if (flag == "--offsets") {
      offsets = true;
    } else if (flag == "--decode") {
      decode = true;
    } else if (flag == "--time" && i + 1 < argc) {
      time_threads = std::max(1, std::atoi(argv[++i]));
    } else {
      std::fprintf(stderr, "tokenize_tool: unknown flag %s\n", argv[i]);
      return 2;
    }
  }
  if (argc < 2) {
    std::fprintf(
        stderr,
        "usage: tokenize_tool TOKENIZER_JSON [--add-special-tokens] [--offsets] [--decode]\n");
    return 2;
  }
  const auto tokenizer = finetuned::Tokenizer::FromFile(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "tokenize_tool: %s\n", std::string(tokenizer.status().message()).c_str());
    return 1;
  }
  std::ios::sync_with_stdio(false);
  std::vector<std::string> texts;
  std::string line;
  while (std::getline(std::cin, line)) {
    const nlohmann::json value = nlohmann::json::parse(line, nullptr, false);
    if (!value.is_string()) {
      std::fprintf(stderr, "tokenize_tool: not a JSON string: %.80s\n", line.c_str());
      return 1;
    }
    if (time_threads > 0) {
      texts.push_back(value.get<std::string>());
      continue;
    }
    const auto encoding =
        (*tokenizer)->EncodeWithOffsets(value.get_ref<const std::string&>(), add_special);
    // The path without offsets has a cache of its own and must agree.
    const auto ids = (*tokenizer)->Encode(value.get_ref<const std::string&>(), add_special);
    if (ids != encoding.ids) {
      std::fprintf(stderr, "tokenize_tool: Encode and EncodeWithOffsets differ on %s\n",
                   line.c_str());
      return 1;
    }
    nlohmann::json out = {{"ids", ids}};
    if (offsets) out["offsets"] = encoding.offsets;
    if (decode) {
      out["text"] = (*tokenizer)->Decode(ids, false);
      out["text_without_special"] = (*tokenizer)->Decode(ids, true);
    }
    std::cout << out.dump() << '\n';
  }
  if (time_threads > 0) Time(**tokenizer, texts, time_threads);
  return 0;
}
