// Hostile templates and variables: an error or a text, never a crash or a hang.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "worker/text/jinja.h"

namespace finetuned::jinja {
namespace {

absl::StatusOr<Rendering> Render(std::string_view source, const nlohmann::ordered_json& variables,
                                 const RenderSettings& settings) {
  const auto parsed = Template::Parse(source, "t");
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(variables, settings);
}

absl::StatusCode Code(std::string_view source) {
  RenderSettings settings;
  settings.max_steps = 200'000;
  settings.max_memory_bytes = 8 << 20;
  return Render(source, nlohmann::ordered_json::object(), settings).status().code();
}

std::string Repeat(std::string_view text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(JinjaLimits, Steps) {
  EXPECT_EQ(
      Code("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"),
      absl::StatusCode::kResourceExhausted);
}

TEST(JinjaLimits, Memory) {
  EXPECT_EQ(Code("{{ 'a' * 1000000000000 }}"), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{{ [1] * 1000000000000 }}"), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{{ 'a'.rjust(1000000000000) }}"), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{{ 'a'|indent(1000000000000) }}"), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{% set s = 'a' * 100000 %}{{ s.replace('a', s) }}"),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s "
                 "%}{% endfor %}"),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}"),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{{ '%*d' % (1000000000, 1) }}"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Code("{{ '{:1000000000}'.format(1) }}"), absl::StatusCode::kInvalidArgument);
}

TEST(JinjaLimits, Recursion) {
  EXPECT_EQ(Code("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{% for a in [[]] recursive %}{{ loop([a]) }}{% endfor %}"),
            absl::StatusCode::kResourceExhausted);
}

TEST(JinjaLimits, NestingOfTheSource) {
  for (const char* open : {"(", "[", "{'a':", "not ", "-", "a if b else ", "x[", "f("}) {
    EXPECT_EQ(Code("{{ " + Repeat(open, 100000)), absl::StatusCode::kInvalidArgument) << open;
  }
  EXPECT_EQ(Code(Repeat("{% if a %}", 100000)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Code("{{ 1" + Repeat(" + 1", 100000) + " }}"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Code("{{ a" + Repeat("|e", 100000) + " }}"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Code("{{ 1" + Repeat(" ~ 1", 1000) + " }}"), absl::StatusCode::kOk);
}

// Lists that hold themselves or share their parts can neither recurse for ever nor print
// exponentially.
TEST(JinjaLimits, SharedAndCyclicValues) {
  EXPECT_EQ(Code("{% set n = namespace() %}{% set n.n = n %}{{ n }}"), absl::StatusCode::kOk);
  const std::string shared =
      "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(150) %}{% set n.a = [n.a, n.a] %}"
      "{% set n.b = [n.b, n.b] %}{% endfor %}";
  EXPECT_EQ(Code(shared + "{{ n.a == n.b }}"), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("{% set n = namespace(a=1) %}{% for i in range(9000) %}{% set n.a = [n.a] %}{% "
                 "endfor %}{{ n.a }}"),
            absl::StatusCode::kOk);
}

TEST(JinjaLimits, DeepVariables) {
  nlohmann::ordered_json deep = 1;
  for (int i = 0; i < 5000; ++i) deep = nlohmann::ordered_json::array({std::move(deep)});
  EXPECT_EQ(Render("{{ x }}", {{"x", deep}}, RenderSettings()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(JinjaLimits, OneTemplateManyThreads) {
  const auto parsed =
      Template::Parse("{% for m in messages %}{{ m.role ~ loop.index }}{% endfor %}", "t");
  ASSERT_TRUE(parsed.ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const auto rendering =
            parsed->Render({{"messages", {{{"role", "a"}}, {{"role", "b"}}}}}, RenderSettings());
        ASSERT_TRUE(rendering.ok());
        EXPECT_EQ(rendering->text, "a1b2");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(JinjaLimits, MutatedTemplates) {
  static constexpr std::string_view kSeeds[] = {
      "{% for m in messages %}{% if m.role == 'user' %}{{ '<|u|>' + m.content|trim }}{% elif "
      "loop.last %}x{% endif %}{% endfor %}",
      "{%- macro r(a, b=1) -%}{{ a[::-1] ~ b|tojson(indent=2) }}{{ caller() }}{%- endmacro %}{% "
      "call r('x') %}y{% endcall %}",
      "{% set n = namespace(i=0) %}{% for k, v in d.items() if v is number %}{% set n.i = n.i + v "
      "** 2 // 3 % 5 %}{% else %}-{% endfor %}{{ n.i }}",
      "{# c #}{% raw %}{{ x }}{% endraw %}{% generation %}{{ [1, 2.5, "
      "none]|map('string')|join(',') }}{% endgeneration %}",
      "{{ '%05.2f|%s' % (3.14159, 'é') }}{{ '{0:>{w}}'.format('a', w=5) }}{{ "
      "messages|groupby('role')|list|length }}",
  };
  static constexpr std::string_view kPieces[] = {"{%",
                                                 "%}",
                                                 "{{",
                                                 "}}",
                                                 "{#",
                                                 "#}",
                                                 "(",
                                                 ")",
                                                 "[",
                                                 "]",
                                                 "'",
                                                 "|",
                                                 ".",
                                                 ",",
                                                 "-",
                                                 "~",
                                                 "**",
                                                 " if ",
                                                 " else ",
                                                 " is ",
                                                 " in ",
                                                 "not ",
                                                 "{% endfor %}",
                                                 "{% if x %}",
                                                 "é",
                                                 "\xff",
                                                 "\n",
                                                 "0x",
                                                 "1e9",
                                                 "99999999999999999999",
                                                 "|sort",
                                                 "|batch(3)",
                                                 ":"};
  const nlohmann::ordered_json variables = {
      {"messages",
       {{{"role", "user"}, {"content", " hi "}}, {{"role", "assistant"}, {"content", "é"}}}},
      {"d", {{"a", 1}, {"b", "x"}, {"c", 2.5}}}};
  const unsigned seed = 20250105;
  std::cout << "mutation seed " << seed << '\n';
  std::mt19937 random(seed);
  RenderSettings settings;
  settings.max_steps = 20'000;
  settings.max_memory_bytes = 4 << 20;
  int rendered = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string source(kSeeds[random() % std::size(kSeeds)]);
    const int edits = 1 + static_cast<int>(random() % 4);
    for (int e = 0; e < edits && !source.empty(); ++e) {
      const size_t at = random() % source.size();
      switch (random() % 3) {
        case 0:
          source.erase(at, 1 + random() % 6);
          break;
        case 1:
          source.insert(at, kPieces[random() % std::size(kPieces)]);
          break;
        default:
          source[at] = static_cast<char>(random() % 256);
      }
    }
    rendered += Render(source, variables, settings).ok();
  }
  std::cout << rendered << " of 20000 mutated templates still render\n";
  EXPECT_GT(rendered, 500);
}

}  // namespace
}  // namespace finetuned::jinja
