"""What the attack programs share; it lies beside each of them in the sandbox.

`sys.argv[1:]` are: a file of the host with a secret in it, a listening TCP port, the name of a listening
abstract socket, the trainer's process id, and the secret backwards (so that finding it proves something).
"""

import ctypes
import os
import sys

secret_file, tcp_port, abstract_name, trainer_pid, secret_backwards = sys.argv[1:6]
secret = secret_backwards[::-1]
libc = ctypes.CDLL(None, use_errno=True)


def attempt(what, action):
    """Do `action`: an exception is what should happen."""
    try:
        result = action()
    except BaseException as error:  # noqa: BLE001 - whatever refused it
        print("held:", what, type(error).__name__)
    else:
        print("ESCAPED:", what, repr(result)[:200])


def call(number, *arguments):
    """A bare system call; raises OSError when the kernel refuses it."""
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
