// A tokenizer out of a tokenizer.json that a test spells, or the text that refuses it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "worker/text/tokenizer.h"

namespace finetuned {

inline std::unique_ptr<Tokenizer> Make(const nlohmann::json& file) {
  auto tokenizer = Tokenizer::FromJson(file.dump(), "test.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline std::string Refusal(const nlohmann::json& file) {
  const auto tokenizer = Tokenizer::FromJson(file.dump(), "test.json");
  EXPECT_FALSE(tokenizer.ok());
  return std::string(tokenizer.status().message());
}

}  // namespace finetuned
