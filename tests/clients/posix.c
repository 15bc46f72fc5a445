/* Takes a POSIX record lock, the classic F_SETLK. See range.h. */

#include "range.h"

int main(int argc, char **argv)
{
	return take_range(argc, argv, F_SETLK, F_SETLKW);
}
