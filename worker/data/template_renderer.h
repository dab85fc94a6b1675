// Conversations through the chat template, with what is checked of the template before the first
// record.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/conversation.h"
#include "worker/data/prepared_data.h"
#include "worker/data/sample.h"

namespace finetuned {

class TemplateRenderer {
 public:
  // Renders a probe conversation. INVALID_ARGUMENT naming dataset.chat_template when the template
  // fails on it, marks nothing of the assistant's, or writes control strings ("<|im_start|>") that
  // are no token of this tokenizer (with chat_template: auto, the tokenizer's own, these are only
  // warned of: some published models are like that). A template that refuses a system role gets it
  // folded into the first user turn, with a notice. `request` must outlive the renderer.
  static absl::StatusOr<std::unique_ptr<TemplateRenderer>> Create(const PrepareRequest& request);

  // BadRecord "template_error" where the template fails on this conversation.
  absl::StatusOr<RenderedText> Render(const Conversation& conversation) const;

  // The turns as the template takes them: unchanged, or with the system turn folded.
  std::vector<Turn> TemplateTurns(std::vector<Turn> turns) const;

 private:
  explicit TemplateRenderer(const PrepareRequest& request);
  absl::StatusOr<RenderedChat> RenderTurns(std::vector<Turn> turns,
                                           const std::string& tools_json) const;

  const PrepareRequest& request_;
  RenderOptions options_;
  bool folds_system_ = false;
};

// What record content should not hold: the tokenizer's special tokens and the usual control strings
// of templates.
std::vector<std::string> ControlStrings(const Tokenizer& tokenizer);

}  // namespace finetuned
