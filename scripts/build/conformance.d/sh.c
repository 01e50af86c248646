/* The shell of the image busybox. Debian's ash drops variables whose names are no shell names, which upstream's hands on
   to the programs that it starts, and a test looks for them. Bash hands them on, but tells errors in words of its own, and
   another test compares those. So ash it is, but for an environment that it would change. */
#include <ctype.h>
#include <unistd.h>

static int is_shell_name(const char *variable) {
  if (!isalpha((unsigned char)*variable) && *variable != '_') return 0;
  while (isalnum((unsigned char)*variable) || *variable == '_') variable++;
  return *variable == '=';
}

int main(int count, char **arguments, char **environment) {
  const char *shell = "/bin/busybox";
  (void)count;
  for (char **variable = environment; *variable; variable++)
    if (!is_shell_name(*variable)) shell = "/bin/bash";
  execv(shell, arguments);
  return 127;
}
