"""TorchServe on this machine: started, waited for, stopped."""
