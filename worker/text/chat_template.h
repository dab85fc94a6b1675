// Chat templates: conversation → text, with the bytes that training is to learn.
//
// Which bytes are "assistant" (RenderedChat::assistant):
//
// 1. A template with {% generation %} blocks: exactly the output of those blocks, as transformers'
//    return_assistant_tokens_mask has it.
// 2. Otherwise, for each message whose role is "assistant":
//    - Its region is what the loop iteration over that message wrote (the engine follows the
//    message
//      objects through slices, filters and macros). If several iterations wrote something, the
//      outermost; among those, the last.
//    - The span begins after the generation prompt: what the conversation before this message,
//      rendered with add_generation_prompt, says beyond the region's start. If the region does not
//      start with it (a template that refuses that prefix, or writes BOS or a default system turn
//      first), the prompt behind the whole conversation is looked for before the content. Where
//      history differs from the prompt (a template that opens "<think>" only when generating), the
//      span begins after their common part, but never inside the content.
//    - The span ends after the end-of-turn marker: at the region's end without trailing white space
//      ("<|im_end|>", not the newline after it). A template that writes no marker in the iteration
//      but eos_token right after it: after that. White space at the end of content with no marker
//      behind stays.
// 3. A template that does not loop over the message objects themselves: rendering prefixes and
//    comparing. The span is what the conversation through this message adds to the conversation
//    before it with generation prompt, where both are prefixes of the whole text. If they are not,
//    Render fails with FailedPrecondition.
//
// A turn of which the template writes nothing has no span. Everything relates to the full
// rendering, so reasoning that a template drops from earlier turns (Qwen3) is in no span.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"
#include "worker/text/jinja.h"

namespace finetuned {

struct Message {
  std::string role;
  std::string content;
};

// Bytes [begin, end) of a text.
struct ByteSpan {
  size_t begin;
  size_t end;
  bool operator==(const ByteSpan&) const = default;
};

struct RenderedChat {
  std::string text;
  std::vector<ByteSpan> assistant;  // in order, not overlapping, never empty
};

struct RenderOptions {
  bool add_generation_prompt = false;
  // As transformers passes the special tokens; an empty one is not defined in the template.
  std::string bos_token, eos_token, pad_token, unk_token;
  absl::Time now;                          // for strftime_now: the time of submission
  nlohmann::ordered_json tools;            // null, or an array of JSON schemas
  nlohmann::ordered_json documents;        // null, or an array
  nlohmann::ordered_json extra_variables;  // null, or an object of further variables; they win
};

class ChatTemplate {
 public:
  // Errors: InvalidArgument "template NAME:LINE:COLUMN: what is wrong".
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Parse(std::string source,
                                                                   std::string name);

  // messages: an array of objects ({"role", "content", …}).
  // Errors: InvalidArgument where the template raises (its words and position), ResourceExhausted
  // for a limit (see jinja::RenderSettings), FailedPrecondition where spans cannot be told.
  // Thread-safe.
  absl::StatusOr<RenderedChat> Render(const nlohmann::ordered_json& messages,
                                      const RenderOptions& options) const;

  // Any variables, as `finetune-worker render` takes them. Spans follow the rules above where the
  // object holds "messages".
  absl::StatusOr<RenderedChat> RenderVariables(const nlohmann::ordered_json& variables,
                                               absl::Time now) const;
  // The text alone, which can be had also where spans cannot be told.
  absl::StatusOr<std::string> RenderText(const nlohmann::ordered_json& variables,
                                         absl::Time now) const;

  const std::string& source() const { return source_; }
  const std::string& name() const { return name_; }
  bool has_generation_block() const { return template_.has_generation_block(); }

 private:
  ChatTemplate(std::string source, std::string name, jinja::Template parsed);

  std::string source_;
  std::string name_;
  jinja::Template template_;
};

nlohmann::ordered_json MessagesJson(absl::Span<const Message> messages);

// One line of the `render` mode: a JSON object of variables → {"text": …}, `with_spans` {"text": …,
// "assistant": [[begin, end], …]} (RenderVariables' spans, in bytes), or {"error": …}. Never fails.
nlohmann::ordered_json RenderLine(const ChatTemplate& chat_template, std::string_view line,
                                  absl::Time now, bool with_spans);

}  // namespace finetuned
