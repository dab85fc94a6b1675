// The language in short; the whole of it is compared with jinja2 in
// tests/reference/template_parity.py, where the expected texts here come from as well.
#include <gtest/gtest.h>

#include "worker/text/jinja.h"

namespace finetuned::jinja {
namespace {

std::string Render(std::string_view source,
                   const nlohmann::ordered_json& variables = nlohmann::ordered_json::object()) {
  const auto parsed = Template::Parse(source, "t");
  if (!parsed.ok()) return std::string(parsed.status().message());
  RenderSettings settings;
  settings.now = absl::FromUnixSeconds(1736068023);  // 2025-01-05T09:07:03Z
  const auto rendering = parsed->Render(variables, settings);
  return rendering.ok() ? rendering->text : std::string(rendering.status().message());
}

TEST(JinjaLanguage, Arithmetic) {
  EXPECT_EQ(
      Render("{{ 7 // -2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 ** 2 }} {{ 1e16 }} {{ 10 / 5 }}"),
      "-4 2 3.5 64 1e+16 2.0");
  EXPECT_EQ(Render("{{ 9223372036854775807 + 1 }}"), "template t:1:24: integer outside 64 bits");
}

TEST(JinjaLanguage, PrintsLikePython) {
  EXPECT_EQ(Render("{{ [1, 'a', none, true, 1.5, (1,), {'k': \"it's\"}] }}"),
            "[1, 'a', None, True, 1.5, (1,), {'k': \"it's\"}]");
}

TEST(JinjaLanguage, StringsAreCodePoints) {
  EXPECT_EQ(Render("{{ s|length }} {{ s[::-1] }} {{ s[1:3] }} {{ s[-1] }} {{ 'ß'|upper }}",
                   {{"s", "äö世🙂"}}),
            "4 🙂世öä ö世 🙂 SS");
}

TEST(JinjaLanguage, UndefinedPrintsNothingAndRefusesTheRest) {
  EXPECT_EQ(Render("[{{ x }}][{{ x|default('d') }}][{{ x is defined }}]"), "[][d][False]");
  EXPECT_EQ(Render("a\n{{ x.y }}"), "template t:2:5: 'x' is undefined");
  EXPECT_EQ(Render("{{ d.y.z }}", {{"d", {{"a", 1}}}}),
            "template t:1:7: 'dict object' has no attribute 'y'");
}

TEST(JinjaLanguage, BlocksAreTrimmedAsTransformersConfiguresThem) {
  EXPECT_EQ(Render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(Render("a  {{- 1 -}}  b {%+ if true %}\n c{% endif +%}\nd"), "a1b  c\nd");
}

TEST(JinjaLanguage, LoopsScopesAndMacros) {
  EXPECT_EQ(Render("{% set n = namespace(t=0) %}{% for a in [3, 1] %}{% set n.t = n.t + a %}{% set "
                   "x = a %}{% endfor %}"
                   "{{ n.t }}{{ x }}"),
            "4");
  EXPECT_EQ(Render("{% macro m(a, b=a) %}{{ a }}{{ b }}{{ varargs }}{% endmacro %}{{ m(1) }}{{ "
                   "m(1, 2, 3) }}"),
            "11()12(3,)");
  EXPECT_EQ(
      Render("{% for n in t recursive %}{{ n.v }}{{ loop(n.c) }}{% endfor %}",
             {{"t", {{{"v", 1}, {"c", {{{"v", 2}, {"c", nlohmann::ordered_json::array()}}}}}}}}),
      "12");
  EXPECT_EQ(Render("{% for a in [1, 2, 3, 4] %}{% if a == 2 %}{% continue %}{% endif %}{% if a == "
                   "4 %}{% break %}"
                   "{% endif %}{{ a }}{% endfor %}"),
            "13");
}

TEST(JinjaLanguage, TojsonIsJsonDumps) {
  EXPECT_EQ(Render("{{ d|tojson }}|{{ d|tojson(indent=1) }}",
                   {{"d", {{"é", "<\u2028\">"}, {"n", nullptr}}}}),
            "{\"é\": \"<\u2028\\\">\", \"n\": null}|{\n \"é\": \"<\u2028\\\">\",\n \"n\": null\n}");
}

TEST(JinjaLanguage, TimeIsGiven) {
  EXPECT_EQ(Render("{{ strftime_now('%d %b %Y %H:%M') }}"), "05 Jan 2025 09:07");
}

TEST(JinjaLanguage, TheSandboxHolds) {
  EXPECT_EQ(Render("{{ l.append(1) }}", {{"l", {1}}}),
            "template t:1:12: access to attribute 'append' of 'list' object is unsafe.");
  EXPECT_EQ(Render("[{{ ''.__class__ }}]"), "[]");
}

TEST(JinjaLanguage, ErrorsNameLineAndColumn) {
  EXPECT_EQ(Render("a\n{% if x %}\n"),
            "template t:2:11: unexpected end of template: {% endif %} is expected for the block "
            "opened on line 2");
  EXPECT_EQ(Render("{{ raise_exception('no ' ~ 1) }}"), "template t:1:19: no 1");
  EXPECT_EQ(Render("{{ 1 | nope }}"), "template t:1:8: No filter named 'nope'");
  EXPECT_EQ(Render("\n\n  {{ 'a }}"),
            "template t:3:6: unexpected char: the string that starts here has no end");
}

}  // namespace
}  // namespace finetuned::jinja
