// Activations of all layers kept in host memory, with two layers' worth on the GPU: written out
// while the forward pass goes on, brought back one layer ahead of the backward pass. Copies run on
// streams of their own; the calls below only order them against the main stream and never wait on
// the host.
//
// Forward, layer by layer:   Room(i) · write Slot(i) · Written(i).
// Backward, last to first:   Need(i) · read Slot(i) · …; Fetch(i − 1) as soon as layer i + 1's slot
// is free.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

namespace finetuned {

class HostRing {
 public:
  HostRing();
  ~HostRing();
  HostRing(const HostRing&) = delete;
  HostRing& operator=(const HostRing&) = delete;

  // `layers` slots of `bytes`; the two on the device are the caller's, 0 for even layers. Pinned
  // host memory grows as needed and is kept. Layers from kept_from on are never copied: they are
  // still on the device when they are needed.
  void Begin(int64_t layers, int64_t bytes, void* slot0, void* slot1, int64_t kept_from,
             cudaStream_t main);
  void* Slot(int64_t layer) const { return slots_[layer % 2]; }
  void Room(int64_t layer);
  void Written(int64_t layer);
  void Fetch(int64_t layer);
  void Need(int64_t layer);

 private:
  void Order(cudaStream_t before, cudaEvent_t event, cudaStream_t after);

  int64_t layers_ = 0, bytes_ = 0, kept_from_ = 0, host_bytes_ = 0;
  char* host_ = nullptr;
  void* slots_[2] = {};
  int64_t held_[2] = {-1, -1};             // the layer whose values a slot has
  bool leaving_[2] = {}, coming_[2] = {};  // a copy that nobody has waited for yet
  cudaStream_t main_ = nullptr, out_ = nullptr, in_ = nullptr;
  cudaEvent_t order_ = nullptr, left_[2] = {}, came_[2] = {};
};

}  // namespace finetuned
