// Tells the service manager where the server stands (sd_notify's protocol: one datagram to
// $NOTIFY_SOCKET). Nothing happens when the variable is not set.
#pragma once

#include <string_view>

#include "absl/time/time.h"

namespace finetuned {

// "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=…", joined with newlines.
void NotifyServiceManager(std::string_view state);

// Half of the service manager's watchdog time ($WATCHDOG_USEC); infinite when it has none.
absl::Duration WatchdogInterval();

}  // namespace finetuned
