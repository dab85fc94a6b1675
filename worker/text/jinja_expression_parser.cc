#include <algorithm>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_parser.h"

namespace finetuned::jinja {
namespace {

constexpr int kMaxHeight = 400;

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "template text";
    case TokenKind::kBlockBegin:
      return "begin of statement block";
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kVariableBegin:
      return "begin of print statement";
    case TokenKind::kVariableEnd:
      return "end of print statement";
    case TokenKind::kEnd:
      return "end of template";
    case TokenKind::kString:
      return "string";
    case TokenKind::kInteger:
      return "integer";
    case TokenKind::kFloat:
      return "float";
    default:
      return token.text;
  }
}

}  // namespace

bool Parser::Expect(TokenKind kind) {
  if (!ok()) return false;
  if (token().kind != kind) {
    Token wanted{kind, {}};
    Fail(token().position, Cat("expected ", Describe(wanted), ", got '", Describe(token()), "'"));
    return false;
  }
  Next();
  return true;
}

void Parser::ExpectOperator(std::string_view text) {
  if (ok() && !SkipOperator(text)) {
    Fail(token().position, Cat("expected '", text, "', got '", Describe(token()), "'"));
  }
}

bool Parser::IsReserved(std::string_view name) {
  for (std::string_view reserved : {"true", "false", "none", "True", "False", "None"}) {
    if (name == reserved) return true;
  }
  return false;
}

Symbol Parser::Intern(const std::string& name) {
  const auto [it, inserted] =
      symbols_.try_emplace(name, static_cast<Symbol>(syntax_->symbols.size()));
  if (inserted) syntax_->symbols.push_back(name);
  return it->second;
}

ExprPtr Parser::NewExpr(ExprKind kind, Position position) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->position = position;
  return expr;
}

ExprPtr Parser::FailExpr(std::string_view message) {
  Fail(token().position, message);
  return NewExpr(ExprKind::kConst, token().position);
}

ExprPtr Parser::Finish(ExprPtr expr) {
  int height = 0;
  const auto consider = [&](const ExprPtr& child) {
    if (child != nullptr) height = std::max(height, child->height);
  };
  consider(expr->target);
  consider(expr->star_args);
  consider(expr->star_kwargs);
  for (const ExprPtr& arg : expr->args) consider(arg);
  for (const auto& [name, arg] : expr->named) consider(arg);
  expr->height = height + 1;
  if (expr->height > kMaxHeight)
    Fail(expr->position, "expression too long: more than 400 operations deep");
  return expr;
}

void Parser::LeaveFrame(size_t mark) {
  for (size_t i = mark; i < unknown_.size(); ++i) {
    if (unknown_[i].soft == Unknown::kOpen) unknown_[i].soft = Unknown::kHard;
  }
}

void Parser::MarkSoft(size_t mark) {
  for (size_t i = mark; i < unknown_.size(); ++i) {
    if (unknown_[i].soft == Unknown::kOpen) unknown_[i].soft = Unknown::kSoft;
  }
}

ExprPtr Parser::ParseExpression(bool with_condition) {
  return with_condition ? ParseCondition() : ParseOr();
}

ExprPtr Parser::ParseCondition() {
  Nesting nesting(this);
  if (!ok()) return NewExpr(ExprKind::kConst, {});
  const Position position = token().position;
  const size_t mark = unknown_.size();
  ExprPtr then = ParseOr();
  while (ok() && SkipName("if")) {
    ExprPtr expr = NewExpr(ExprKind::kCondition, position);
    expr->args.push_back(ParseOr());
    expr->args.push_back(std::move(then));
    expr->args.push_back(SkipName("else") ? ParseCondition() : nullptr);
    then = Finish(std::move(expr));
    MarkSoft(mark);
  }
  return then;
}

ExprPtr Parser::ParseOr() {
  ExprPtr left = ParseAnd();
  while (ok() && IsName("or")) {
    ExprPtr expr = NewExpr(ExprKind::kOr, token().position);
    Next();
    expr->args.push_back(std::move(left));
    expr->args.push_back(ParseAnd());
    left = Finish(std::move(expr));
  }
  return left;
}

ExprPtr Parser::ParseAnd() {
  ExprPtr left = ParseNot();
  while (ok() && IsName("and")) {
    ExprPtr expr = NewExpr(ExprKind::kAnd, token().position);
    Next();
    expr->args.push_back(std::move(left));
    expr->args.push_back(ParseNot());
    left = Finish(std::move(expr));
  }
  return left;
}

ExprPtr Parser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  Nesting nesting(this);
  ExprPtr expr = NewExpr(ExprKind::kNot, token().position);
  Next();
  expr->args.push_back(ok() ? ParseNot() : nullptr);
  return ok() ? Finish(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::ParseCompare() {
  const Position position = token().position;
  ExprPtr first = ParseAdditive();
  ExprPtr expr;
  while (ok()) {
    Op op;
    if (IsOperator("==")) {
      op = Op::kEq;
    } else if (IsOperator("!=")) {
      op = Op::kNe;
    } else if (IsOperator("<")) {
      op = Op::kLt;
    } else if (IsOperator("<=")) {
      op = Op::kLe;
    } else if (IsOperator(">")) {
      op = Op::kGt;
    } else if (IsOperator(">=")) {
      op = Op::kGe;
    } else if (IsName("in")) {
      op = Op::kIn;
    } else if (IsName("not") && IsName("in", 1)) {
      op = Op::kNotIn;
      Next();
    } else {
      break;
    }
    Next();
    if (expr == nullptr) {
      expr = NewExpr(ExprKind::kCompare, position);
      expr->args.push_back(std::move(first));
    }
    expr->ops.push_back(op);
    expr->args.push_back(ParseAdditive());
  }
  return expr == nullptr ? std::move(first) : Finish(std::move(expr));
}

ExprPtr Parser::Binary(Op op, ExprPtr left, ExprPtr right, Position position) {
  ExprPtr expr = NewExpr(ExprKind::kBinary, position);
  expr->op = op;
  expr->args.push_back(std::move(left));
  expr->args.push_back(std::move(right));
  return Finish(std::move(expr));
}

ExprPtr Parser::ParseAdditive() {
  ExprPtr left = ParseConcat();
  while (ok() && (IsOperator("+") || IsOperator("-"))) {
    const Op op = IsOperator("+") ? Op::kAdd : Op::kSub;
    const Position position = token().position;
    Next();
    left = Binary(op, std::move(left), ParseConcat(), position);
  }
  return left;
}

ExprPtr Parser::ParseConcat() {
  ExprPtr first = ParseMultiplicative();
  if (!ok() || !IsOperator("~")) return first;
  ExprPtr expr = NewExpr(ExprKind::kConcat, token().position);
  expr->args.push_back(std::move(first));
  while (ok() && SkipOperator("~")) expr->args.push_back(ParseMultiplicative());
  return Finish(std::move(expr));
}

ExprPtr Parser::ParseMultiplicative() {
  ExprPtr left = ParsePower();
  while (ok()) {
    Op op;
    if (IsOperator("*")) {
      op = Op::kMul;
    } else if (IsOperator("/")) {
      op = Op::kDiv;
    } else if (IsOperator("//")) {
      op = Op::kFloorDiv;
    } else if (IsOperator("%")) {
      op = Op::kMod;
    } else {
      break;
    }
    const Position position = token().position;
    Next();
    left = Binary(op, std::move(left), ParsePower(), position);
  }
  return left;
}

ExprPtr Parser::ParsePower() {
  ExprPtr left = ParseUnary(true);
  while (ok() && IsOperator("**")) {  // from the left, unlike Python
    const Position position = token().position;
    Next();
    left = Binary(Op::kPow, std::move(left), ParseUnary(true), position);
  }
  return left;
}

ExprPtr Parser::ParseUnary(bool with_filter) {
  Nesting nesting(this);
  if (!ok()) return NewExpr(ExprKind::kConst, {});
  ExprPtr expr;
  if (IsOperator("-") || IsOperator("+")) {
    expr = NewExpr(IsOperator("-") ? ExprKind::kNegate : ExprKind::kPositive, token().position);
    Next();
    expr->args.push_back(ParseUnary(false));
    expr = Finish(std::move(expr));
  } else {
    expr = ParsePrimary(false);
  }
  expr = ParsePostfix(std::move(expr));
  return with_filter ? ParseFiltersAndTests(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::ParsePrimary(bool with_namespace) {
  if (!ok()) return NewExpr(ExprKind::kConst, {});
  const Token current = token();
  ExprPtr expr = NewExpr(ExprKind::kConst, current.position);
  switch (current.kind) {
    case TokenKind::kName:
      Next();
      if (current.text == "true" || current.text == "True") {
        expr->value = Value::Bool(true);
      } else if (current.text == "false" || current.text == "False") {
        expr->value = Value::Bool(false);
      } else if (current.text == "none" || current.text == "None") {
        expr->value = Value::None();
      } else if (with_namespace && IsOperator(".")) {
        Next();
        if (token().kind != TokenKind::kName) return FailExpr("expected an attribute name");
        expr->kind = ExprKind::kNamespaceRef;
        expr->symbol = Intern(current.text);
        expr->name = token().text;
        Next();
      } else {
        expr->kind = ExprKind::kName;
        expr->name = current.text;
        expr->symbol = Intern(current.text);
        loaded_names_.push_back(expr->symbol);
      }
      return expr;
    case TokenKind::kString: {
      std::string text;
      for (; token().kind == TokenKind::kString; Next()) text += token().text;
      expr->value = syntax_->constants.String(std::move(text));
      return expr;
    }
    case TokenKind::kInteger:
      Next();
      expr->value = Value::Int(current.integer);
      return expr;
    case TokenKind::kFloat:
      Next();
      expr->value = Value::Float(current.number);
      return expr;
    default:
      break;
  }
  if (SkipOperator("(")) {
    expr = ParseTuple(true, {}, true);
    ExpectOperator(")");
    return expr;
  }
  if (SkipOperator("[")) {
    expr->kind = ExprKind::kList;
    while (ok() && !IsOperator("]")) {
      if (!expr->args.empty()) ExpectOperator(",");
      if (IsOperator("]")) break;
      expr->args.push_back(ParseExpression(true));
    }
    ExpectOperator("]");
    return Finish(std::move(expr));
  }
  if (SkipOperator("{")) {
    expr->kind = ExprKind::kDict;
    while (ok() && !IsOperator("}")) {
      if (!expr->args.empty()) ExpectOperator(",");
      if (IsOperator("}")) break;
      expr->args.push_back(ParseExpression(true));
      ExpectOperator(":");
      expr->args.push_back(ParseExpression(true));
    }
    ExpectOperator("}");
    return Finish(std::move(expr));
  }
  return FailExpr(Cat("unexpected '", Describe(current), "'"));
}

ExprPtr Parser::ParsePostfix(ExprPtr expr) {
  while (ok()) {
    if (IsOperator(".") || IsOperator("[")) {
      expr = ParseSubscript(std::move(expr));
    } else if (IsOperator("(")) {
      expr = ParseCall(std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr Parser::ParseFiltersAndTests(ExprPtr expr) {
  while (ok()) {
    if (SkipOperator("|")) {
      expr = ParseFilter(std::move(expr));
    } else if (IsName("is")) {
      expr = ParseTest(std::move(expr));
    } else if (IsOperator("(")) {
      expr = ParseCall(std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr Parser::ParseSubscript(ExprPtr object) {
  ExprPtr expr = NewExpr(ExprKind::kGetitem, token().position);
  expr->target = std::move(object);
  if (SkipOperator(".")) {
    const Token attribute = token();
    Next();
    if (attribute.kind == TokenKind::kName) {
      expr->kind = ExprKind::kGetattr;
      expr->name = attribute.text;
    } else if (attribute.kind == TokenKind::kInteger) {
      ExprPtr index = NewExpr(ExprKind::kConst, attribute.position);
      index->value = Value::Int(attribute.integer);
      expr->args.push_back(std::move(index));
    } else {
      Fail(attribute.position, "expected name or number");
    }
    return Finish(std::move(expr));
  }
  Next();
  std::vector<ExprPtr> subscripts;
  while (ok() && !IsOperator("]")) {
    if (!subscripts.empty()) ExpectOperator(",");
    subscripts.push_back(ParseSubscribed());
  }
  ExpectOperator("]");
  if (subscripts.size() == 1) {
    expr->args.push_back(std::move(subscripts[0]));
  } else {
    ExprPtr tuple = NewExpr(ExprKind::kTuple, expr->position);
    tuple->args = std::move(subscripts);
    expr->args.push_back(Finish(std::move(tuple)));
  }
  return Finish(std::move(expr));
}

ExprPtr Parser::ParseSubscribed() {
  ExprPtr slice = NewExpr(ExprKind::kSlice, token().position);
  slice->args.resize(3);
  if (!IsOperator(":")) {
    slice->args[0] = ParseExpression(true);
    if (!IsOperator(":")) return std::move(slice->args[0]);
  }
  Next();
  const auto at_end = [this] { return IsOperator("]") || IsOperator(","); };
  if (!IsOperator(":") && !at_end()) slice->args[1] = ParseExpression(true);
  if (SkipOperator(":") && !at_end()) slice->args[2] = ParseExpression(true);
  return Finish(std::move(slice));
}

ExprPtr Parser::ParseCall(ExprPtr callee) {
  ExprPtr expr = NewExpr(ExprKind::kCall, token().position);
  expr->target = std::move(callee);
  ParseArguments(expr.get());
  return Finish(std::move(expr));
}

void Parser::ParseArguments(Expr* call) {
  const Position open = token().position;
  ExpectOperator("(");
  bool need_comma = false;
  const auto ensure = [&](bool condition) {
    if (!condition) Fail(open, "invalid syntax for function call expression");
  };
  while (ok() && !IsOperator(")")) {
    if (need_comma) {
      ExpectOperator(",");
      if (IsOperator(")")) break;
    }
    if (SkipOperator("*")) {
      ensure(call->star_args == nullptr && call->star_kwargs == nullptr);
      call->star_args = ParseExpression(true);
    } else if (SkipOperator("**")) {
      ensure(call->star_kwargs == nullptr);
      call->star_kwargs = ParseExpression(true);
    } else if (token().kind == TokenKind::kName && IsOperator("=", 1)) {
      ensure(call->star_kwargs == nullptr);
      const std::string name = token().text;
      for (const auto& existing : call->named) {
        if (existing.first == name)
          Fail(token().position, Cat("keyword argument repeated: ", name));
      }
      Next();
      Next();
      call->named.emplace_back(name, ParseExpression(true));
    } else {
      ensure(call->star_args == nullptr && call->star_kwargs == nullptr && call->named.empty());
      call->args.push_back(ParseExpression(true));
    }
    need_comma = true;
  }
  ExpectOperator(")");
}

ExprPtr Parser::ParseFilter(ExprPtr subject) {
  ExprPtr expr = NewExpr(ExprKind::kFilter, token().position);
  expr->args.push_back(std::move(subject));
  if (token().kind != TokenKind::kName) return FailExpr("expected a filter name");
  expr->name = token().text;
  Next();
  while (ok() && SkipOperator(".")) {
    expr->name += Cat(".", token().text);
    Next();
  }
  if (!FilterExists(expr->name)) unknown_.push_back({expr->position, expr->name, true});
  if (IsOperator("(")) ParseArguments(expr.get());
  return Finish(std::move(expr));
}

ExprPtr Parser::ParseFilters(ExprPtr subject) {
  while (ok() && SkipOperator("|")) subject = ParseFilter(std::move(subject));
  return subject;
}

ExprPtr Parser::ParseTest(ExprPtr subject) {
  const Position position = token().position;
  Next();
  const bool negated = SkipName("not");
  ExprPtr expr = NewExpr(ExprKind::kTest, position);
  expr->args.push_back(std::move(subject));
  if (token().kind != TokenKind::kName) return FailExpr("expected a test name");
  expr->name = token().text;
  Next();
  while (ok() && SkipOperator(".")) {
    expr->name += Cat(".", token().text);
    Next();
  }
  if (!TestExists(expr->name)) unknown_.push_back({position, expr->name, false});
  const TokenKind kind = token().kind;
  if (IsOperator("(")) {
    ParseArguments(expr.get());
  } else if ((kind == TokenKind::kName || kind == TokenKind::kString ||
              kind == TokenKind::kInteger || kind == TokenKind::kFloat || IsOperator("[") ||
              IsOperator("{")) &&
             !IsName("else") && !IsName("or") && !IsName("and")) {
    if (IsName("is")) return FailExpr("You cannot chain multiple tests with is");
    expr->args.push_back(ParsePostfix(ParsePrimary(false)));
  }
  expr = Finish(std::move(expr));
  if (!negated) return expr;
  ExprPtr negation = NewExpr(ExprKind::kNot, position);
  negation->args.push_back(std::move(expr));
  return Finish(std::move(negation));
}

bool Parser::IsTupleEnd(std::initializer_list<std::string_view> ends) const {
  if (token().kind == TokenKind::kVariableEnd || token().kind == TokenKind::kBlockEnd ||
      IsOperator(")"))
    return true;
  return std::any_of(ends.begin(), ends.end(),
                     [this](std::string_view end) { return IsName(end); });
}

ExprPtr Parser::ParseTuple(bool with_condition, std::initializer_list<std::string_view> ends,
                           bool parentheses) {
  ExprPtr tuple = NewExpr(ExprKind::kTuple, token().position);
  bool is_tuple = false;
  while (ok()) {
    if (!tuple->args.empty()) ExpectOperator(",");
    if (IsTupleEnd(ends)) break;
    tuple->args.push_back(ParseExpression(with_condition));
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!tuple->args.empty()) return std::move(tuple->args[0]);
    if (!parentheses) return FailExpr(Cat("Expected an expression, got '", Describe(token()), "'"));
  }
  return Finish(std::move(tuple));
}

ExprPtr Parser::ParseTarget(std::initializer_list<std::string_view> ends, bool with_namespace) {
  const Position position = token().position;
  const size_t loaded = loaded_names_.size();
  ExprPtr tuple = NewExpr(ExprKind::kTuple, position);
  bool is_tuple = false;
  while (ok()) {
    if (!tuple->args.empty()) ExpectOperator(",");
    if (IsTupleEnd(ends)) break;
    tuple->args.push_back(ParsePrimary(with_namespace));
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  loaded_names_.resize(loaded);  // an assignment is no use
  if (!ok()) return tuple;
  if (tuple->args.empty()) return FailExpr(Cat("Expected a name, got '", Describe(token()), "'"));
  ExprPtr target = is_tuple ? Finish(std::move(tuple)) : std::move(tuple->args[0]);
  const std::function<bool(const Expr&)> assignable = [&](const Expr& expr) {
    if (expr.kind == ExprKind::kTuple) {
      return std::all_of(expr.args.begin(), expr.args.end(),
                         [&](const ExprPtr& arg) { return assignable(*arg); });
    }
    return expr.kind == ExprKind::kName || expr.kind == ExprKind::kNamespaceRef;
  };
  if (!assignable(*target)) Fail(position, "can't assign to this expression");
  return target;
}

}  // namespace finetuned::jinja
