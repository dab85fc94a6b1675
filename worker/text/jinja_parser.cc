// Statements and the template as a whole; expressions are in jinja_expression_parser.cc.
#include "worker/text/jinja_parser.h"

#include <algorithm>
#include <utility>

#include "proto/base/status_macros.h"
#include "worker/text/jinja_cat.h"

namespace finetuned::jinja {
namespace {

bool AssignsLoop(const Expr& target) {
  if (target.kind == ExprKind::kName) return target.symbol == Syntax::kLoop;
  return std::any_of(target.args.begin(), target.args.end(),
                     [](const ExprPtr& arg) { return AssignsLoop(*arg); });
}

}  // namespace

StmtPtr Parser::NewStmt(StmtKind kind) {
  auto stmt = std::make_unique<Stmt>();
  stmt->kind = kind;
  stmt->position = token().position;
  return stmt;
}

std::vector<StmtPtr> Parser::Body(std::initializer_list<std::string_view> ends,
                                  std::string* ended_by) {
  SkipOperator(":");
  std::vector<StmtPtr> body;
  const Position open = token().position;
  if (!Expect(TokenKind::kBlockEnd)) return body;
  body = Subparse(ends, open);
  if (!ok()) return body;
  *ended_by = token().text;
  Next();
  return body;
}

std::vector<StmtPtr> Parser::Body(std::string_view end) {
  std::string ended_by;
  return Body({end}, &ended_by);
}

std::vector<StmtPtr> Parser::Subparse(std::initializer_list<std::string_view> ends, Position open) {
  std::vector<StmtPtr> body;
  Nesting nesting(this);
  StmtPtr output;
  const auto add = [&](ExprPtr expr, Position position) {
    if (output == nullptr) {
      output = std::make_unique<Stmt>();
      output->kind = StmtKind::kOutput;
      output->position = position;
    }
    output->exprs.push_back(std::move(expr));
  };
  const auto flush = [&] {
    if (output != nullptr) body.push_back(std::move(output));
    output = nullptr;
  };
  while (ok()) {
    const Position position = token().position;
    switch (token().kind) {
      case TokenKind::kData: {
        ExprPtr data = NewExpr(ExprKind::kData, position);
        data->value = syntax_->constants.String(token().text);
        add(std::move(data), position);
        Next();
        break;
      }
      case TokenKind::kVariableBegin:
        Next();
        add(ParseTuple(true, {}, false), position);
        Expect(TokenKind::kVariableEnd);
        break;
      case TokenKind::kBlockBegin: {
        flush();
        Next();
        for (std::string_view end : ends) {
          if (IsName(end)) return body;
        }
        if (StmtPtr stmt = ParseStatement(); stmt != nullptr) body.push_back(std::move(stmt));
        if (ok()) Expect(TokenKind::kBlockEnd);
        break;
      }
      default:
        flush();
        if (ends.size() != 0) {
          Fail(token().position, Cat("unexpected end of template: {% ", *(ends.end() - 1),
                                     " %} is expected for the block opened on line ", open.line));
        }
        return body;
    }
  }
  return body;
}

StmtPtr Parser::ParseStatement() {
  if (token().kind != TokenKind::kName) return FailStmt("tag name expected");
  const std::string tag = token().text;
  if (tag == "for") return ParseFor();
  if (tag == "if") return ParseIf();
  if (tag == "set") return ParseSet();
  if (tag == "macro") return ParseMacro();
  if (tag == "call") return ParseCallBlock();
  if (tag == "filter") return ParseFilterBlock();
  if (tag == "with") return ParseWith();
  if (tag == "generation") {
    StmtPtr stmt = NewStmt(StmtKind::kGeneration);
    Next();
    syntax_->has_generation = true;
    const size_t mark = EnterFrame();
    const int loops = std::exchange(loop_depth_, 0);
    stmt->body = Body("endgeneration");
    loop_depth_ = loops;
    LeaveFrame(mark);
    return stmt;
  }
  if (tag == "break" || tag == "continue") {
    StmtPtr stmt = NewStmt(tag == "break" ? StmtKind::kBreak : StmtKind::kContinue);
    if (loop_depth_ == 0) return FailStmt(Cat("'", tag, "' outside loop"));
    Next();
    return stmt;
  }
  if (tag == "print") {
    StmtPtr stmt = NewStmt(StmtKind::kOutput);
    Next();
    while (ok() && token().kind != TokenKind::kBlockEnd) {
      if (!stmt->exprs.empty()) ExpectOperator(",");
      stmt->exprs.push_back(ParseExpression(true));
    }
    return stmt;
  }
  if (tag == "block" || tag == "autoescape") return ParseScope(tag);
  if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
    StmtPtr stmt = NewStmt(StmtKind::kUnsupported);
    stmt->name = tag;
    while (token().kind != TokenKind::kBlockEnd && token().kind != TokenKind::kEnd) Next();
    return stmt;
  }
  return FailStmt(Cat("Encountered unknown tag '", tag, "'"));
}

StmtPtr Parser::ParseScope(const std::string& tag) {
  StmtPtr stmt = NewStmt(StmtKind::kScope);
  Next();
  if (tag == "autoescape") {
    stmt->expr = ParseExpression(true);
  } else {
    if (token().kind != TokenKind::kName) return FailStmt("block name expected");
    stmt->name = token().text;
    Next();
    SkipName("scoped");
    SkipName("required");
  }
  const size_t mark = EnterFrame();
  const int loops = std::exchange(loop_depth_, 0);
  stmt->body = Body(tag == "block" ? "endblock" : "endautoescape");
  loop_depth_ = loops;
  LeaveFrame(mark);
  if (tag == "block") SkipName(stmt->name);
  return stmt;
}

StmtPtr Parser::ParseFor() {
  StmtPtr stmt = NewStmt(StmtKind::kFor);
  Next();
  stmt->target = ParseTarget({"in"}, false);
  if (!ok()) return stmt;
  if (AssignsLoop(*stmt->target))
    return FailStmt("Can't assign to special loop variable in for-loop target");
  if (!SkipName("in")) return FailStmt("expected 'in'");
  stmt->expr = ParseTuple(false, {"recursive"}, false);
  const size_t mark = EnterFrame();
  if (SkipName("if")) stmt->test = ParseExpression(true);
  stmt->recursive = SkipName("recursive");
  ++loop_depth_;
  std::string ended_by;
  stmt->body = Body({"endfor", "else"}, &ended_by);
  --loop_depth_;
  if (ok() && ended_by == "else") stmt->otherwise = Body("endfor");
  LeaveFrame(mark);
  return stmt;
}

StmtPtr Parser::ParseIf() {
  StmtPtr stmt = NewStmt(StmtKind::kIf);
  const size_t mark = unknown_.size();
  Next();
  while (ok()) {
    ExprPtr test = ParseTuple(false, {}, false);
    std::string ended_by;
    std::vector<StmtPtr> body = Body({"elif", "else", "endif"}, &ended_by);
    stmt->branches.emplace_back(std::move(test), std::move(body));
    if (ended_by == "elif") continue;
    if (ok() && ended_by == "else") stmt->otherwise = Body("endif");
    break;
  }
  MarkSoft(mark);
  return stmt;
}

StmtPtr Parser::ParseSet() {
  StmtPtr stmt = NewStmt(StmtKind::kSet);
  Next();
  stmt->target = ParseTarget({}, true);
  if (!ok()) return stmt;
  if (SkipOperator("=")) {
    stmt->expr = ParseTuple(true, {}, false);
    return stmt;
  }
  stmt->kind = StmtKind::kSetBlock;
  const size_t mark = EnterFrame();
  stmt->expr = ParseFilters(nullptr);
  stmt->body = Body("endset");
  LeaveFrame(mark);
  return stmt;
}

StmtPtr Parser::ParseWith() {
  StmtPtr stmt = NewStmt(StmtKind::kWith);
  Next();
  while (ok() && token().kind != TokenKind::kBlockEnd) {
    if (!stmt->exprs.empty()) ExpectOperator(",");
    stmt->exprs.push_back(ParseTarget({}, false));
    ExpectOperator("=");
    stmt->exprs.push_back(ParseExpression(true));
  }
  const size_t mark = EnterFrame();
  stmt->body = Body("endwith");
  LeaveFrame(mark);
  return stmt;
}

void Parser::ParseSignature(Signature* signature) {
  ExpectOperator("(");
  while (ok() && !IsOperator(")")) {
    if (!signature->parameters.empty()) ExpectOperator(",");
    if (!ok()) return;
    if (token().kind != TokenKind::kName || IsReserved(token().text)) {
      Fail(token().position, "expected a parameter name");
      return;
    }
    const std::string name = token().text;
    for (const auto& parameter : signature->parameters) {
      if (parameter.second == name) Fail(token().position, Cat("duplicate parameter '", name, "'"));
    }
    Next();
    if (SkipOperator("=")) {
      signature->defaults.push_back(ParseExpression(true));
    } else if (!signature->defaults.empty()) {
      Fail(token().position, "non-default argument follows default argument");
    }
    signature->parameters.emplace_back(Intern(name), name);
    if (name == "caller") signature->explicit_caller = true;
  }
  ExpectOperator(")");
}

void Parser::ParseMacroBody(Stmt* stmt, std::string_view end) {
  const size_t mark = EnterFrame();
  const size_t names = loaded_names_.size();
  const int loops = std::exchange(loop_depth_, 0);
  stmt->body = Body(end);
  loop_depth_ = loops;
  LeaveFrame(mark);
  // As in jinja2, a macro takes extra arguments only if its body names where they would go.
  Signature& signature = stmt->signature;
  for (size_t i = names; i < loaded_names_.size(); ++i) {
    signature.takes_caller |= loaded_names_[i] == Syntax::kCaller;
    signature.takes_kwargs |= loaded_names_[i] == Syntax::kKwargs;
    signature.takes_varargs |= loaded_names_[i] == Syntax::kVarargs;
  }
  for (const auto& [symbol, name] : signature.parameters) {
    if (symbol == Syntax::kKwargs) signature.takes_kwargs = false;
    if (symbol == Syntax::kVarargs) signature.takes_varargs = false;
  }
  if (signature.explicit_caller && signature.takes_caller) {
    for (size_t i = 0; i < signature.parameters.size(); ++i) {
      const size_t first_default = signature.parameters.size() - signature.defaults.size();
      if (signature.parameters[i].first == Syntax::kCaller && i < first_default) {
        Fail(stmt->position,
             "When defining macros or call blocks the special \"caller\" argument must be omitted "
             "or be given a "
             "default.");
      }
    }
  }
}

StmtPtr Parser::ParseMacro() {
  StmtPtr stmt = NewStmt(StmtKind::kMacro);
  Next();
  if (token().kind != TokenKind::kName || IsReserved(token().text))
    return FailStmt("expected a macro name");
  stmt->signature.name = token().text;
  stmt->symbol = Intern(token().text);
  Next();
  ParseSignature(&stmt->signature);
  ParseMacroBody(stmt.get(), "endmacro");
  return stmt;
}

StmtPtr Parser::ParseCallBlock() {
  StmtPtr stmt = NewStmt(StmtKind::kCallBlock);
  Next();
  stmt->signature.anonymous = true;
  if (IsOperator("(")) ParseSignature(&stmt->signature);
  const Position position = token().position;
  stmt->expr = ParseExpression(true);
  if (ok() && stmt->expr->kind != ExprKind::kCall) Fail(position, "expected call");
  ParseMacroBody(stmt.get(), "endcall");
  return stmt;
}

StmtPtr Parser::ParseFilterBlock() {
  StmtPtr stmt = NewStmt(StmtKind::kFilterBlock);
  Next();
  const size_t mark = EnterFrame();
  stmt->expr = ParseFilter(nullptr);
  stmt->expr = ParseFilters(std::move(stmt->expr));
  stmt->body = Body("endfilter");
  LeaveFrame(mark);
  return stmt;
}

absl::StatusOr<std::unique_ptr<Syntax>> Parser::Run(std::string_view source) {
  FT_ASSIGN_OR_RETURN(tokens_, Tokenize(source, syntax_->name));
  for (const char* name : {"loop", "caller", "varargs", "kwargs"}) Intern(name);
  syntax_->body = Subparse({}, {});
  LeaveFrame(0);
  if (ok()) {
    for (const Unknown& unknown : unknown_) {
      if (unknown.soft == Unknown::kHard) {
        Fail(unknown.position,
             Cat("No ", unknown.filter ? "filter" : "test", " named '", unknown.name, "'"));
        break;
      }
    }
  }
  if (!ok()) return status_;
  return std::move(syntax_);
}

absl::StatusOr<std::unique_ptr<Syntax>> ParseTemplate(std::string_view source,
                                                      std::string_view name) {
  return Parser(name).Run(source);
}

}  // namespace finetuned::jinja
