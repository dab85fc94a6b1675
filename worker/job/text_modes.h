// The modes of finetune-worker that put the tokenizer and the template engine into a pipe, for
// scripts and tests:
//
//   tokenize    one JSON string a line          → {"ids": […]}
//   detokenize  one JSON array of ids a line    → {"text": …}
//   render      one JSON object of variables    → {"text": …}
//
// One line in, one line out, in order; what is written is ASCII. A line that cannot be done is answered with {"error": "line
// 3: …"} and the next one follows. Answers are written when no complete line of input is left to
// read, so a partner that asks and waits gets its answer, and a large file goes through in large
// pieces. Memory does not grow with the input, only with its longest line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace finetuned {

// Whether `mode`, the first argument of the program, is one of the above.
bool IsTextMode(std::string_view mode);

// Does what `mode` says until the end of `input`, both being file descriptors that stay open.
// `arguments` are those after the mode. Returns the exit status: 0, also when a reader closed
// `output`; 1 when reading or writing fails; 2 for wrong arguments, an unreadable file or a file
// that is wrong, said on standard error. A template that does not parse answers every line with its
// error besides. REQUIRES: IsTextMode(mode).
int RunTextMode(std::string_view mode, const std::vector<std::string>& arguments, int input,
                int output);

}  // namespace finetuned
