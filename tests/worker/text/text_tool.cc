// text_tool MODE ARGUMENTS: the text modes of finetune-worker (worker/job/text_modes.h) as a small
// program.
#include <unistd.h>

#include <cstdio>

#include "worker/job/text_modes.h"

int main(int argc, char** argv) {
  if (argc < 2 || !finetuned::IsTextMode(argv[1])) {
    std::fprintf(stderr, "usage: text_tool tokenize|detokenize|render ARGUMENTS\n");
    return 2;
  }
  return finetuned::RunTextMode(argv[1], {argv + 2, argv + argc}, STDIN_FILENO, STDOUT_FILENO);
}
