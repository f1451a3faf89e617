"""Make rsa_private_key.bin (encrypted PKCS#8) and rsa_public_key.pem in the current folder: `tvmc keygen`."""

import sys

from tvm_secret.cli import main

if __name__ == "__main__":
    sys.exit(main(["keygen", *sys.argv[1:]]))
