// What belongs to a model beside its weights: tokenizer, chat template, special tokens, end tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace finetuned {

struct ModelAssets {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string tokenizer_sha256;
  std::shared_ptr<const ChatTemplate> chat_template;
  std::string template_origin;  // "tokenizer_config.json", "chat_template.jinja", "built-in chatml", a file
  std::string bos_token, eos_token, pad_token, unk_token;  // text; empty when there is none
  bool tokenizer_adds_bos = false, tokenizer_adds_eos = false;  // by its post-processor
  std::vector<int64_t> stop_token_ids;  // generation ends at any of these
  std::vector<std::string> notices;     // for the event log: what was chosen and why
};

// `chat_template`: "auto", a built-in's name, or with `chat_template_path` an absolute .jinja file.
// NOT_FOUND without tokenizer.json, INVALID_ARGUMENT naming the file and what is wrong in it; where no template can be
// told, the built-ins are listed. `needs_template` false (plain text data): a missing template is no error.
absl::StatusOr<ModelAssets> LoadModelAssets(const std::string& model_dir, const std::string& chat_template,
                                            const std::string& chat_template_path, bool needs_template);

// Token ids of a conversation up to where the assistant is to answer. FAILED_PRECONDITION without a chat template;
// `now_unix` is what strftime_now of a template sees.
absl::StatusOr<std::vector<int32_t>> PromptIds(const ModelAssets& assets, const std::vector<Message>& messages, int64_t now_unix);

}  // namespace finetuned
