#include "worker/data/batches.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "worker/data/content_hash.h"

namespace finetuned {
namespace {

// A window closes at the first sample that brings it to this many full rows: large enough that its
// last, partly filled row hardly counts, small enough that an epoch stays shuffled.
constexpr int64_t kWindowRows = 1024;
// Without packing, samples of similar length are looked for among this many micro-batches of the
// shuffle.
constexpr int64_t kWindowBatches = 50;

using Rows = std::vector<std::vector<uint32_t>>;

class Random {
 public:
  Random(uint64_t seed, int64_t epoch)
      : state_(Mix64(seed) ^ Mix64(~static_cast<uint64_t>(epoch))) {}

  // Fisher-Yates; the same on every platform, unlike std::shuffle.
  template <typename T>
  void Shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[Below(i)]);
  }

 private:
  uint64_t Below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64);
  }
  uint64_t Next() { return Mix64(state_ += 0x9E3779B97F4A7C15ull); }
  uint64_t state_;
};

// Open rows by free space, with the tightest fit found by scanning a bitmap of the spaces that
// occur.
class OpenRows {
 public:
  explicit OpenRows(int64_t capacity) : by_space_(capacity + 1), occupied_(capacity / 64 + 1) {}

  // A row with the least free space that is at least `length`, removed from here; -1 when there is
  // none.
  std::pair<int64_t, int64_t> TakeTightest(int64_t length) {
    for (size_t word = length / 64; word < occupied_.size(); ++word) {
      uint64_t bits = occupied_[word];
      if (word == static_cast<size_t>(length / 64)) bits &= ~uint64_t{0} << (length % 64);
      if (bits == 0) continue;
      const int64_t space = static_cast<int64_t>(word * 64 + std::countr_zero(bits));
      std::vector<uint32_t>& rows = by_space_[space];
      const uint32_t row = rows.back();
      rows.pop_back();
      if (rows.empty()) occupied_[word] &= ~(uint64_t{1} << (space % 64));
      return {row, space};
    }
    return {-1, 0};
  }
  void Add(uint32_t row, int64_t space) {
    if (space <= 0) return;
    by_space_[space].push_back(row);
    occupied_[space / 64] |= uint64_t{1} << (space % 64);
  }

 private:
  std::vector<std::vector<uint32_t>> by_space_;
  std::vector<uint64_t> occupied_;
};

// Best-fit-decreasing: longest first, each into the fullest row that still has room. `samples` is
// sorted in place; equal lengths keep their order.
void PackWindow(absl::Span<const int32_t> lengths, std::vector<uint32_t>& samples, int64_t capacity,
                Rows& rows) {
  std::stable_sort(samples.begin(), samples.end(),
                   [&](uint32_t a, uint32_t b) { return lengths[a] > lengths[b]; });
  OpenRows open(capacity);
  for (const uint32_t sample : samples) {
    const int64_t length = lengths[sample];
    auto [row, space] =
        length <= capacity ? open.TakeTightest(length) : std::pair<int64_t, int64_t>{-1, 0};
    if (row < 0) {
      row = static_cast<int64_t>(rows.size());
      space = capacity;
      rows.emplace_back();
    }
    rows[row].push_back(sample);
    open.Add(static_cast<uint32_t>(row), space - length);
  }
}

double Efficiency(absl::Span<const int32_t> lengths, int64_t rows, int64_t capacity) {
  if (rows == 0) return 1;
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  return static_cast<double>(tokens) / static_cast<double>(rows * capacity);
}

EpochBatches CutRows(Rows rows, int64_t rows_per_batch) {
  EpochBatches out;
  out.rows = static_cast<int64_t>(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i % rows_per_batch == 0) out.batches.emplace_back();
    out.batches.back().rows.push_back(std::move(rows[i]));
  }
  return out;
}

// Micro-batches of at most `rows` samples and `max_tokens` tokens with padding, in the order given.
std::vector<MicroBatch> CutSamples(absl::Span<const int32_t> lengths,
                                   absl::Span<const uint32_t> order, int64_t rows,
                                   int64_t max_tokens) {
  std::vector<MicroBatch> batches;
  int64_t longest = 0;
  for (const uint32_t sample : order) {
    const int64_t longest_with = std::max<int64_t>(longest, lengths[sample]);
    const int64_t count = batches.empty() ? 0 : static_cast<int64_t>(batches.back().rows.size());
    if (batches.empty() || count >= rows || (count + 1) * longest_with > max_tokens) {
      batches.emplace_back();
      longest = 0;
    }
    longest = std::max<int64_t>(longest, lengths[sample]);
    batches.back().rows.push_back({sample});
  }
  return batches;
}

int64_t MaxTokens(const BatchOptions& options) {
  return options.max_tokens > 0 ? options.max_tokens : options.rows * options.max_seq_length;
}

std::vector<uint32_t> AllSamples(size_t count) {
  std::vector<uint32_t> samples(count);
  std::iota(samples.begin(), samples.end(), 0u);
  return samples;
}

}  // namespace

EpochBatches MakeTrainBatches(absl::Span<const int32_t> lengths, const BatchOptions& options,
                              int64_t epoch) {
  Random random(options.seed, epoch);
  std::vector<uint32_t> order = AllSamples(lengths.size());
  random.Shuffle(order);
  const int64_t rows_per_batch = std::max<int64_t>(options.rows, 1);

  if (options.packing) {
    Rows rows;
    std::vector<uint32_t> window;
    int64_t window_tokens = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      window.push_back(order[i]);
      window_tokens += lengths[order[i]];
      if (window_tokens >= kWindowRows * options.max_seq_length || i + 1 == order.size()) {
        PackWindow(lengths, window, options.max_seq_length, rows);
        window.clear();
        window_tokens = 0;
      }
    }
    random.Shuffle(rows);
    EpochBatches out = CutRows(std::move(rows), rows_per_batch);
    out.packing_efficiency = Efficiency(lengths, out.rows, options.max_seq_length);
    return out;
  }

  EpochBatches out;
  const size_t window = static_cast<size_t>(rows_per_batch * kWindowBatches);
  for (size_t begin = 0; begin < order.size(); begin += window) {
    const size_t size = std::min(window, order.size() - begin);
    const auto first = order.begin() + static_cast<int64_t>(begin);
    std::stable_sort(first, first + static_cast<int64_t>(size),
                     [&](uint32_t a, uint32_t b) { return lengths[a] > lengths[b]; });
    for (MicroBatch& batch : CutSamples(lengths, absl::MakeSpan(order).subspan(begin, size),
                                        rows_per_batch, MaxTokens(options))) {
      out.batches.push_back(std::move(batch));
    }
  }
  random.Shuffle(out.batches);
  out.rows = static_cast<int64_t>(lengths.size());
  return out;
}

EpochBatches MakeEvalBatches(absl::Span<const int32_t> lengths, const BatchOptions& options) {
  std::vector<uint32_t> order = AllSamples(lengths.size());
  const int64_t rows_per_batch = std::max<int64_t>(options.rows, 1);
  if (options.packing) {
    Rows rows;
    PackWindow(lengths, order, options.max_seq_length, rows);
    EpochBatches out = CutRows(std::move(rows), rows_per_batch);
    out.packing_efficiency = Efficiency(lengths, out.rows, options.max_seq_length);
    return out;
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return lengths[a] < lengths[b]; });
  EpochBatches out;
  out.batches = CutSamples(lengths, order, rows_per_batch, MaxTokens(options));
  out.rows = static_cast<int64_t>(lengths.size());
  return out;
}

}  // namespace finetuned
