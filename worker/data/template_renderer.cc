#include "worker/data/template_renderer.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"

namespace finetuned {
namespace {

using Json = nlohmann::ordered_json;

// Strings of the form <|…|> in a text.
std::set<std::string> PipeTokens(std::string_view text) {
  std::set<std::string> found;
  for (size_t begin = text.find("<|"); begin != std::string_view::npos;
       begin = text.find("<|", begin + 2)) {
    const size_t end = text.find("|>", begin + 2);
    if (end == std::string_view::npos) break;
    const std::string_view name = text.substr(begin + 2, end - begin - 2);
    if (!name.empty() && name.size() <= 64 &&
        name.find_first_of(" \n<|") == std::string_view::npos) {
      found.emplace(text.substr(begin, end + 2 - begin));
    }
  }
  return found;
}

// The system turn's words at the head of the first user turn.
void FoldSystem(std::vector<Turn>& turns) {
  if (turns.size() < 2 || turns[0].role != "system" || turns[1].role != "user") return;
  turns[1].content = absl::StrCat(turns[0].content, "\n\n", turns[1].content);
  turns.erase(turns.begin());
}

absl::Status TemplateError(std::string_view what) {
  return WithReason(absl::InvalidArgumentError(absl::StrCat(
                        "dataset.chat_template: ", std::string(what),
                        "; set dataset.chat_template to a built-in's name or to a .jinja file")),
                    "INVALID_SPEC");
}

}  // namespace

TemplateRenderer::TemplateRenderer(const PrepareRequest& request) : request_(request) {
  options_.bos_token = request.bos_token;
  options_.eos_token = request.eos_token;
  options_.pad_token = request.pad_token;
  options_.unk_token = request.unk_token;
  options_.now = absl::FromUnixSeconds(request.submit_time_unix);
}

absl::StatusOr<std::unique_ptr<TemplateRenderer>> TemplateRenderer::Create(
    const PrepareRequest& request) {
  std::unique_ptr<TemplateRenderer> renderer(new TemplateRenderer(request));
  if (request.chat_template == nullptr) return renderer;
  const auto log = [&](v1::Level level, std::string text) {
    if (request.log) request.log(level, std::move(text));
  };
  const std::vector<Turn> turns = {{"user", "What is two and two?", ""},
                                   {"assistant", "Four.", ""}};
  absl::StatusOr<RenderedChat> probe = renderer->RenderTurns(turns, "");
  if (!probe.ok()) {
    return TemplateError(absl::StrCat("the template fails on a plain conversation (",
                                      std::string(probe.status().message()), ")"));
  }
  if (probe->assistant.empty() && !request.spec.dataset().train_on_inputs()) {
    return TemplateError(
        "the template marks nothing that the assistant says, so no token would be trained");
  }
  std::vector<Turn> with_system = turns;
  with_system.insert(with_system.begin(), Turn{"system", "Be brief.", ""});
  if (const auto rendered = renderer->RenderTurns(with_system, ""); rendered.ok()) {
    probe = rendered;
  } else {
    renderer->folds_system_ = true;
    log(v1::INFO, absl::StrCat("The chat template refuses a system role (",
                               std::string(rendered.status().message()),
                               "); system turns are put at the head of the first user turn."));
  }
  std::string unknown;
  for (const std::string& control : PipeTokens(probe->text)) {
    if (!request.tokenizer->TokenToId(control))
      absl::StrAppend(&unknown, unknown.empty() ? "" : ", ", control);
  }
  if (!unknown.empty()) {
    const std::string what = absl::StrCat("the template writes ", unknown,
                                          ", which this tokenizer has no single token for");
    if (request.spec.dataset().chat_template() != "auto" &&
        !request.spec.dataset().chat_template().empty()) {
      return TemplateError(what);
    }
    log(v1::WARNING,
        absl::StrCat("The tokenizer's own chat template: ", what, "; they become ordinary text."));
  }
  return renderer;
}

std::vector<Turn> TemplateRenderer::TemplateTurns(std::vector<Turn> turns) const {
  if (folds_system_) FoldSystem(turns);
  return turns;
}

absl::StatusOr<RenderedChat> TemplateRenderer::RenderTurns(std::vector<Turn> turns,
                                                           const std::string& tools_json) const {
  turns = TemplateTurns(std::move(turns));
  Json messages = Json::array();
  for (Turn& turn : turns) {
    Json message = {{"role", turn.role}, {"content", std::move(turn.content)}};
    if (!turn.extra_json.empty()) {
      Json extra = Json::parse(turn.extra_json, nullptr, /*allow_exceptions=*/false);
      if (extra.is_object()) message.update(extra);
    }
    messages.push_back(std::move(message));
  }
  if (tools_json.empty()) return request_.chat_template->Render(messages, options_);
  RenderOptions options = options_;
  options.tools = Json::parse(tools_json, nullptr, /*allow_exceptions=*/false);
  if (!options.tools.is_array()) return absl::InvalidArgumentError("\"tools\" is no JSON list");
  return request_.chat_template->Render(messages, options);
}

absl::StatusOr<RenderedText> TemplateRenderer::Render(const Conversation& conversation) const {
  if (request_.chat_template == nullptr) {
    return TemplateError("the data holds conversations, but the model has no chat template");
  }
  absl::StatusOr<RenderedChat> chat = RenderTurns(conversation.turns, conversation.tools_json);
  if (!chat.ok()) return BadRecord("template_error", std::string(chat.status().message()));
  RenderedText out;
  out.text = std::move(chat->text);
  for (const ByteSpan& span : chat->assistant) out.responses.push_back({span.begin, span.end});
  return out;
}

std::vector<std::string> ControlStrings(const Tokenizer& tokenizer) {
  std::set<std::string> strings = {"<|im_start|>",    "<|im_end|>",   "[INST]",
                                   "[/INST]",         "<<SYS>>",      "<|eot_id|>",
                                   "<start_of_turn>", "<end_of_turn>"};
  for (const auto& token : tokenizer.added_tokens()) {
    if (token.special && token.content.size() >= 3) strings.insert(token.content);
  }
  return {strings.begin(), strings.end()};
}

}  // namespace finetuned
