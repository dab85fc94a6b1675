// Prints the learning rates of a schedule for tests/reference/schedule_parity.py:
//   schedule_tool TYPE PEAK MIN_RATIO WARMUP TOTAL   → one rate a line, for updates 0 … TOTAL
#include <cstdio>
#include <cstdlib>

#include "worker/training/schedule.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  finetuned::Schedule schedule;
  schedule.type = argv[1];
  schedule.peak = std::atof(argv[2]);
  schedule.min_ratio = std::atof(argv[3]);
  schedule.warmup_steps = std::atoll(argv[4]);
  schedule.total_steps = std::atoll(argv[5]);
  for (int64_t step = 0; step <= schedule.total_steps; ++step) std::printf("%.17g\n", schedule.At(step));
  return 0;
}
