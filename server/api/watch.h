// WatchJob: one job's log to one client, from after_seq + 1, without gaps. The next write starts
// when the last one is done, so a slow client costs one page of events and slows nobody. The stream
// ends with OK after the newest event of a job in a final state (a later rerun is a new watch),
// with NOT_FOUND when the job is deleted, and with UNAVAILABLE naming the after_seq to resume from
// when the server stops.
//
// Events pass as the bytes the store holds; they are not parsed but for the few that change the
// state.
//
// Threads: gRPC's, the hub's and the store's; none of them blocks.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "finetuned/v1/service.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/store/event_hub.h"
#include "server/store/job_store.h"

namespace finetuned {

class WatchStream;

// The open streams, so that shutdown can end them. Outlives them.
class WatchRegistry {
 public:
  // Ends each with UNAVAILABLE and "resume with after_seq=N"; streams that start later end at once.
  void EndAll();

 private:
  friend class WatchStream;
  // False after EndAll.
  bool Add(std::shared_ptr<WatchStream> stream);
  void Remove(WatchStream* stream);

  std::mutex mutex_;
  bool ended_ = false;
  std::map<WatchStream*, std::weak_ptr<WatchStream>> streams_;
};

// Starts a watch for a serialized WatchJobRequest; the reactor owns itself.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartWatch(JobStore* store, EventHub* hub,
                                                       WatchRegistry* registry,
                                                       const grpc::ByteBuffer& request);

// A stream that ends with this status before anything is sent; the reactor owns itself.
grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseWatch(const absl::Status& status);

}  // namespace finetuned
