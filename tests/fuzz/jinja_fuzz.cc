// Any bytes as a template of the engine, under tight limits.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "worker/text/jinja.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed =
      finetuned::jinja::Template::Parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!parsed.ok()) return 0;
  finetuned::jinja::RenderSettings settings;
  settings.now = absl::FromUnixSeconds(1736067600);
  settings.max_steps = 100'000;
  settings.max_memory_bytes = size_t{64} << 20;
  static const auto variables = nlohmann::ordered_json::parse(
      R"({"messages": [{"role": "user", "content": "Hi é"}, {"role": "assistant", "content": null}],
          "s": "a b", "l": [3, 1, 2], "d": {"k": [1.5, true]}, "i": -7})");
  parsed->Render(variables, settings).status().IgnoreError();
  return 0;
}
