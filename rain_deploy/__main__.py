"""``python -m rain_deploy`` is the command ``rain-deploy``."""

from rain_deploy.cli.main import main

if __name__ == "__main__":
    main()
