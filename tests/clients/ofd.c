/* Takes an open file description lock. See range.h. */

#include "range.h"

int main(int argc, char **argv)
{
	return take_range(argc, argv, F_OFD_SETLK, F_OFD_SETLKW);
}
