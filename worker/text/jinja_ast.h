// The syntax tree of a template. Nodes keep the names of jinja2.nodes where the language has them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/text/jinja_lexer.h"
#include "worker/text/jinja_value.h"

namespace finetuned::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;
using Symbol = uint32_t;  // index into Syntax::symbols

enum class ExprKind : uint8_t {
  kConst,
  kData,  // template text
  kName,
  kNamespaceRef,  // assignment target ns.attribute
  kTuple,
  kList,
  kDict,  // args: key, value, key, value, …
  kNegate,
  kPositive,
  kNot,
  kAnd,
  kOr,
  kBinary,
  kConcat,
  kCompare,    // args[0] ops[0] args[1] ops[1] …
  kCondition,  // args: test, then, else (null: Undefined)
  kGetattr,
  kGetitem,
  kSlice,  // args: start, stop, step (each may be null)
  kCall,
  kFilter,  // args[0] is the subject (null inside a filter block)
  kTest,
};

enum class Op : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn
};

struct Expr {
  ExprKind kind;
  Position position;
  Op op = Op::kAdd;
  Symbol symbol = 0;
  std::string name;  // name, attribute, filter or test
  Value value;
  ExprPtr target;  // object of getattr, getitem, call
  std::vector<ExprPtr> args;
  std::vector<Op> ops;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star_args, star_kwargs;
  int height = 1;
};

enum class StmtKind : uint8_t {
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kScope,  // block, autoescape false
  kGeneration,
  kBreak,
  kContinue,
  kUnsupported,  // include, import, extends: an error when reached, as without a loader
};

struct Signature {
  std::string name;
  bool anonymous = false;  // a call block's body
  std::vector<std::pair<Symbol, std::string>> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false, explicit_caller = false;
};

struct Stmt {
  StmtKind kind;
  Position position;
  std::string name;
  ExprPtr target, expr, test;
  bool recursive = false;
  Symbol symbol = 0;
  std::vector<ExprPtr> exprs;  // output; with: target, value, target, value, …
  std::vector<StmtPtr> body, otherwise;
  std::vector<std::pair<ExprPtr, std::vector<StmtPtr>>> branches;  // if, elif …
  Signature signature;
};

struct Syntax {
  std::string name;
  std::vector<std::string> symbols;
  std::vector<StmtPtr> body;
  Arena constants;
  bool has_generation = false;

  // Fixed symbols, interned first.
  static constexpr Symbol kLoop = 0, kCaller = 1, kVarargs = 2, kKwargs = 3;
};

// Errors: InvalidArgument "template NAME:LINE:COLUMN: …"; nesting is limited to 200 levels.
absl::StatusOr<std::unique_ptr<Syntax>> ParseTemplate(std::string_view source,
                                                      std::string_view name);

// Whether a filter or test of this name exists (defined beside their tables).
bool FilterExists(std::string_view name);
bool TestExists(std::string_view name);

}  // namespace finetuned::jinja
