// Hand-written scanners for the pre-tokenizer patterns of GPT-2, Llama 3 and Qwen 2, several times
// as fast as a backtracking engine. tests/worker/text/split_patterns_test.cc holds them equal to
// Oniguruma on the same patterns.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "worker/text/aligned_text.h"

namespace finetuned {

enum class SplitPattern { kGpt2, kLlama3, kQwen2 };

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The scanner for exactly this pattern text, if there is one.
std::optional<SplitPattern> KnownSplitPattern(std::string_view pattern);

// Cuts [span.begin, span.end) of well-formed `text` into the pattern's matches, which cover all of
// it, and appends them.
void SplitByKnownPattern(SplitPattern pattern, std::string_view text, Span span,
                         std::vector<Span>& out);

}  // namespace finetuned
