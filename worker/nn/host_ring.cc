#include "worker/nn/host_ring.h"

#include "kernels/base/cuda_util.cuh"

namespace finetuned {

using kernels::CheckCuda;

HostRing::HostRing() {
  CheckCuda(cudaStreamCreateWithFlags(&out_, cudaStreamNonBlocking), "stream");
  CheckCuda(cudaStreamCreateWithFlags(&in_, cudaStreamNonBlocking), "stream");
  for (cudaEvent_t* event : {&order_, &left_[0], &left_[1], &came_[0], &came_[1]}) {
    CheckCuda(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "event");
  }
}

HostRing::~HostRing() {
  cudaStreamSynchronize(out_);
  cudaStreamSynchronize(in_);
  for (cudaEvent_t event : {order_, left_[0], left_[1], came_[0], came_[1]})
    cudaEventDestroy(event);
  cudaStreamDestroy(out_);
  cudaStreamDestroy(in_);
  if (host_ != nullptr) cudaFreeHost(host_);
}

void HostRing::Order(cudaStream_t before, cudaEvent_t event, cudaStream_t after) {
  CheckCuda(cudaEventRecord(event, before), "event");
  CheckCuda(cudaStreamWaitEvent(after, event, 0), "event");
}

void HostRing::Begin(int64_t layers, int64_t bytes, void* slot0, void* slot1, int64_t kept_from,
                     cudaStream_t main) {
  layers_ = layers;
  bytes_ = bytes;
  kept_from_ = kept_from;
  slots_[0] = slot0;
  slots_[1] = slot1;
  main_ = main;
  const int64_t needed = layers * bytes;
  if (needed > host_bytes_) {
    if (host_ != nullptr) CheckCuda(cudaFreeHost(host_), "pinned host memory");
    host_ = nullptr;
    host_bytes_ = 0;
    CheckCuda(cudaHostAlloc(reinterpret_cast<void**>(&host_), static_cast<size_t>(needed),
                            cudaHostAllocDefault),
              "pinned host memory for activations");
    host_bytes_ = needed;
  }
  for (int i = 0; i < 2; ++i) {
    held_[i] = -1;
    leaving_[i] = coming_[i] = false;
  }
}

void HostRing::Room(int64_t layer) {
  const int slot = static_cast<int>(layer % 2);
  if (leaving_[slot]) CheckCuda(cudaStreamWaitEvent(main_, left_[slot], 0), "event");
  leaving_[slot] = false;
}

void HostRing::Written(int64_t layer) {
  const int slot = static_cast<int>(layer % 2);
  held_[slot] = layer;
  if (layer >= kept_from_) return;
  Order(main_, order_, out_);
  CheckCuda(cudaMemcpyAsync(host_ + layer * bytes_, slots_[slot], static_cast<size_t>(bytes_),
                            cudaMemcpyDeviceToHost, out_),
            "activations to the host");
  CheckCuda(cudaEventRecord(left_[slot], out_), "event");
  leaving_[slot] = true;
}

void HostRing::Fetch(int64_t layer) {
  const int slot = static_cast<int>(layer % 2);
  if (layer < 0 || held_[slot] == layer) return;
  // The slot's last reader is on the main stream, the copy to the host that is read back on the
  // other one.
  Order(main_, order_, in_);
  CheckCuda(cudaEventRecord(order_, out_), "event");
  CheckCuda(cudaStreamWaitEvent(in_, order_, 0), "event");
  CheckCuda(cudaMemcpyAsync(slots_[slot], host_ + layer * bytes_, static_cast<size_t>(bytes_),
                            cudaMemcpyHostToDevice, in_),
            "activations from the host");
  CheckCuda(cudaEventRecord(came_[slot], in_), "event");
  coming_[slot] = true;
  held_[slot] = layer;
}

void HostRing::Need(int64_t layer) {
  const int slot = static_cast<int>(layer % 2);
  if (coming_[slot]) CheckCuda(cudaStreamWaitEvent(main_, came_[slot], 0), "event");
  coming_[slot] = false;
}

}  // namespace finetuned
