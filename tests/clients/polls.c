/* Waits for a file with poll, select and epoll, and prints a line for each:
 * what is ready at once. A lock is always readable and writable, like an
 * ordinary file.
 *
 *	polls PATH */

#include "take.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

int main(int argc, char **argv)
{
	struct pollfd p = { .events = POLLIN | POLLOUT };
	struct epoll_event want = { .events = EPOLLIN | EPOLLOUT }, got;
	struct timeval limit = { .tv_sec = 2 };
	fd_set in, out;
	int fd, ep, n;

	if (argc != 2) {
		fprintf(stderr, "usage: polls PATH\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0666);
	if (fd < 0)
		fail(argv[1]);

	p.fd = fd;
	n = poll(&p, 1, 2000);
	if (n < 0)
		fail("poll");
	printf("poll %d in=%d out=%d other=%d\n", n, !!(p.revents & POLLIN), !!(p.revents & POLLOUT),
	       p.revents & (POLLERR | POLLHUP | POLLNVAL));

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(fd, &in);
	FD_SET(fd, &out);
	n = select(fd + 1, &in, &out, NULL, &limit);
	if (n < 0)
		fail("select");
	printf("select %d in=%d out=%d\n", n, FD_ISSET(fd, &in), FD_ISSET(fd, &out));

	ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &want) < 0)
		fail("epoll");
	n = epoll_wait(ep, &got, 1, 2000);
	if (n < 0)
		fail("epoll_wait");
	printf("epoll %d in=%d out=%d\n", n, n == 1 && (got.events & EPOLLIN), n == 1 && (got.events & EPOLLOUT));
	return 0;
}
