// Any bytes as a chat template: the spans of what it renders are in order and inside the text.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "worker/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = finetuned::ChatTemplate::Parse(
      std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!parsed.ok()) return 0;
  static const auto messages = finetuned::MessagesJson({{"system", "Be brief."},
                                                        {"user", "One\n"},
                                                        {"assistant", "1 é"},
                                                        {"user", "Two"},
                                                        {"assistant", " 2 "}});
  finetuned::RenderOptions options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = absl::FromUnixSeconds(1736067600);
  const auto chat = (*parsed)->Render(messages, options);
  if (!chat.ok()) return 0;
  size_t previous = 0;
  for (const finetuned::ByteSpan& span : chat->assistant) {
    if (span.begin < previous || span.begin >= span.end || span.end > chat->text.size())
      std::abort();
    previous = span.end;
  }
  return 0;
}
