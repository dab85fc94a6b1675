#include "server/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/numbers.h"

namespace finetuned {

void NotifyServiceManager(std::string_view state) {
  const char* variable = std::getenv("NOTIFY_SOCKET");
  if (variable == nullptr || (variable[0] != '/' && variable[0] != '@')) return;
  const std::string path = variable;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path.data(), path.size());
  // '@' stands for the zero byte of an abstract socket.
  if (path[0] == '@') address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  // A manager that does not listen is no reason to fail.
  (void)!sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address),
                offsetof(sockaddr_un, sun_path) + path.size());
  close(fd);
}

absl::Duration WatchdogInterval() {
  const char* variable = std::getenv("WATCHDOG_USEC");
  int64_t microseconds = 0;
  if (variable == nullptr || !absl::SimpleAtoi(variable, &microseconds) || microseconds <= 0)
    return absl::InfiniteDuration();
  return absl::Microseconds(microseconds) / 2;
}

}  // namespace finetuned
