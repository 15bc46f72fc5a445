// Writes a text with one write(2) from memory in which it lies across the boundary of
// two pages, AT bytes of it in the first.
// usage: straddle PATH AT TEXT
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	size_t page = sysconf(_SC_PAGESIZE), at = atoi(argv[2]), size = strlen(argv[3]);
	char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED || at > size || size > page)
		return 2;
	char *text = pages + page - at;
	memcpy(text, argv[3], size);
	int fd = open(argv[1], O_WRONLY | O_CREAT, 0666);
	if (fd < 0) {
		perror("open");
		return 2;
	}
	ssize_t n = write(fd, text, size);
	if (n != (ssize_t)size) {
		printf("%zd: %s\n", n, n < 0 ? strerror(errno) : "");
		return 1;
	}
	return 0;
}
