"""What bearings and rotors do: kinematics, films, fault classes and their spectral signatures."""
