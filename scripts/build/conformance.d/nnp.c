/* The program of the image nonewprivs: installed with the set-user-ID bit, it tells whether that had an effect. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
  printf("Effective uid: %u\n", geteuid());
  return 0;
}
