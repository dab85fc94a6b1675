// Recursive-descent parser with jinja2's grammar. Internal to the engine: use ParseTemplate
// (jinja_ast.h).
//
// After the first error every method returns quickly with whatever it has; nobody looks at the tree
// then.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "worker/text/jinja_ast.h"

namespace finetuned::jinja {

class Parser {
 public:
  explicit Parser(std::string_view name) : syntax_(std::make_unique<Syntax>()) {
    syntax_->name = std::string(name);
  }

  absl::StatusOr<std::unique_ptr<Syntax>> Run(std::string_view source);

 private:
  static constexpr int kMaxNesting = 200;

  // Counts nesting of expressions and statements so that hostile input cannot exhaust the stack.
  struct Nesting {
    explicit Nesting(Parser* parser) : parser(parser) {
      if (++parser->nesting_ > kMaxNesting)
        parser->Fail(parser->token().position, "nested more than 200 levels deep");
    }
    ~Nesting() { --parser->nesting_; }
    Parser* parser;
  };

  // A filter or test that does not exist is an error of the template, unless it stands in a
  // condition's branch: there jinja2 raises only when it is reached.
  struct Unknown {
    enum Softness { kOpen, kSoft, kHard };
    Position position;
    std::string name;
    bool filter;
    Softness soft = kOpen;
  };

  bool ok() const { return status_.ok(); }
  void Fail(Position position, std::string_view message) {
    if (status_.ok()) status_ = ErrorAt(syntax_->name, position, message);
  }
  StmtPtr FailStmt(std::string_view message) {
    Fail(token().position, message);
    return std::make_unique<Stmt>();
  }

  const Token& token(size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  void Next() {
    if (next_ + 1 < tokens_.size()) ++next_;
  }
  bool IsName(std::string_view text, size_t ahead = 0) const {
    return token(ahead).kind == TokenKind::kName && token(ahead).text == text;
  }
  bool IsOperator(std::string_view text, size_t ahead = 0) const {
    return token(ahead).kind == TokenKind::kOperator && token(ahead).text == text;
  }
  bool SkipName(std::string_view text) {
    if (!IsName(text)) return false;
    Next();
    return true;
  }
  bool SkipOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    Next();
    return true;
  }
  bool Expect(TokenKind kind);
  void ExpectOperator(std::string_view text);
  static bool IsReserved(std::string_view name);

  Symbol Intern(const std::string& name);
  ExprPtr NewExpr(ExprKind kind, Position position);
  ExprPtr FailExpr(std::string_view message);
  StmtPtr NewStmt(StmtKind kind);
  // Sets the height of a node from its children and refuses trees too high to evaluate.
  ExprPtr Finish(ExprPtr expr);

  size_t EnterFrame() const { return unknown_.size(); }
  void LeaveFrame(size_t mark);
  void MarkSoft(size_t mark);

  // Statements.
  std::vector<StmtPtr> Subparse(std::initializer_list<std::string_view> ends, Position open);
  std::vector<StmtPtr> Body(std::initializer_list<std::string_view> ends, std::string* ended_by);
  std::vector<StmtPtr> Body(std::string_view end);
  StmtPtr ParseStatement();
  StmtPtr ParseFor();
  StmtPtr ParseIf();
  StmtPtr ParseSet();
  StmtPtr ParseWith();
  StmtPtr ParseMacro();
  StmtPtr ParseCallBlock();
  StmtPtr ParseFilterBlock();
  StmtPtr ParseScope(const std::string& tag);
  void ParseSignature(Signature* signature);
  void ParseMacroBody(Stmt* stmt, std::string_view end);

  // Expressions, by rising precedence.
  ExprPtr ParseExpression(bool with_condition);
  ExprPtr ParseCondition();
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseAdditive();
  ExprPtr ParseConcat();
  ExprPtr ParseMultiplicative();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filter);
  ExprPtr ParsePrimary(bool with_namespace);
  ExprPtr ParsePostfix(ExprPtr expr);
  ExprPtr ParseFiltersAndTests(ExprPtr expr);
  ExprPtr ParseSubscript(ExprPtr expr);
  ExprPtr ParseSubscribed();
  ExprPtr ParseCall(ExprPtr expr);
  void ParseArguments(Expr* call);
  ExprPtr ParseFilter(ExprPtr subject);   // at the filter's name
  ExprPtr ParseFilters(ExprPtr subject);  // zero or more "| name"
  ExprPtr ParseTest(ExprPtr subject);
  ExprPtr ParseTuple(bool with_condition, std::initializer_list<std::string_view> ends,
                     bool parentheses);
  ExprPtr ParseTarget(std::initializer_list<std::string_view> ends, bool with_namespace);
  bool IsTupleEnd(std::initializer_list<std::string_view> ends) const;
  ExprPtr Binary(Op op, ExprPtr left, ExprPtr right, Position position);

  std::unique_ptr<Syntax> syntax_;
  absl::Status status_;
  std::vector<Token> tokens_;
  size_t next_ = 0;
  int nesting_ = 0;
  int loop_depth_ = 0;
  std::vector<Unknown> unknown_;
  std::vector<Symbol> loaded_names_;
  absl::flat_hash_map<std::string, Symbol> symbols_;
};

}  // namespace finetuned::jinja
