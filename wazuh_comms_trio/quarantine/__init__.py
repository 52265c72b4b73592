"""What can never be taken goes here with its bytes and the reason: the Protocol, the store on disk, the one in
memory."""
