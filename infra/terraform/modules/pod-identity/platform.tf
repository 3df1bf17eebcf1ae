# What the cluster's add-ons may do: KEDA looks at lag, External Secrets reads two secrets, the load balancer
# controller touches only what carries this cluster's tag, the autoscaler only this cluster's groups.

locals {
  keda_statements = [
    local.connect_kafka,
    { Effect = "Allow", Action = ["kafka-cluster:DescribeTopic"], Resource = local.topic_arns },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeGroup"], Resource = local.group_arns },
  ]

  external_secrets_statements = [
    { Effect = "Allow", Action = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], Resource = var.secret_arns },
    {
      Effect    = "Allow"
      Action    = ["kms:Decrypt"]
      Resource  = [var.data_kms_key_arn]
      Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.region}.amazonaws.com" } }
    },
  ]

  autoscaler_statements = [
    {
      Effect = "Allow"
      Action = [
        "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLaunchConfigurations",
        "autoscaling:DescribeScalingActivities", "ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions",
        "ec2:GetInstanceTypesFromInstanceRequirements", "eks:DescribeNodegroup",
      ]
      Resource = "*"
    },
    {
      Effect    = "Allow"
      Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
      Resource  = ["arn:aws:autoscaling:${local.region_account}:autoScalingGroup:*:autoScalingGroupName/*"]
      Condition = { StringEquals = { "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.cluster_name}" = "owned" } }
    },
  ]

  cluster_tag  = "elbv2.k8s.aws/cluster"
  owned        = { StringEquals = { "aws:ResourceTag/${local.cluster_tag}" = var.cluster_name } }
  becoming_own = { StringEquals = { "aws:RequestTag/${local.cluster_tag}" = var.cluster_name } }

  load_balancing_arns = [
    for kind in ["loadbalancer/app/*/*", "targetgroup/*/*", "listener/app/*/*/*", "listener-rule/app/*/*/*/*"] :
    "arn:aws:elasticloadbalancing:${local.region_account}:${kind}"
  ]
  security_group_arns = ["arn:aws:ec2:${local.region_account}:security-group/*"]

  load_balancer_statements = [
    {
      Sid    = "Look"
      Effect = "Allow"
      Action = [
        "ec2:DescribeAccountAttributes", "ec2:DescribeAddresses", "ec2:DescribeAvailabilityZones", "ec2:DescribeInternetGateways",
        "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets", "ec2:DescribeTags", "ec2:DescribeVpcs",
        "elasticloadbalancing:DescribeCapacityReservation", "elasticloadbalancing:DescribeListenerAttributes",
        "elasticloadbalancing:DescribeListenerCertificates", "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:DescribeLoadBalancerAttributes", "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeRules", "elasticloadbalancing:DescribeSSLPolicies", "elasticloadbalancing:DescribeTags",
        "elasticloadbalancing:DescribeTargetGroupAttributes", "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth", "acm:ListCertificates", "wafv2:GetWebACLForResource",
      ]
      Resource = "*"
    },
    {
      Sid      = "UseOneCertificateAndOneFirewall"
      Effect   = "Allow"
      Action   = ["acm:DescribeCertificate", "wafv2:GetWebACL", "wafv2:AssociateWebACL", "wafv2:DisassociateWebACL"]
      Resource = concat(var.certificate_arns, var.web_acl_arns, ["arn:aws:elasticloadbalancing:${local.region_account}:loadbalancer/app/*/*"])
    },
    {
      Sid       = "MakeWithTheClusterTag"
      Effect    = "Allow"
      Action    = ["elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup", "elasticloadbalancing:CreateListener", "elasticloadbalancing:CreateRule"]
      Resource  = local.load_balancing_arns
      Condition = local.becoming_own
    },
    {
      Sid      = "TagWhatIsBeingMade"
      Effect   = "Allow"
      Action   = ["elasticloadbalancing:AddTags"]
      Resource = local.load_balancing_arns
      Condition = {
        StringEquals = {
          "elasticloadbalancing:CreateAction"   = ["CreateLoadBalancer", "CreateTargetGroup", "CreateListener", "CreateRule"]
          "aws:RequestTag/${local.cluster_tag}" = var.cluster_name
        }
      }
    },
    {
      Sid    = "ChangeWhatIsOurs"
      Effect = "Allow"
      Action = [
        "elasticloadbalancing:AddListenerCertificates", "elasticloadbalancing:AddTags", "elasticloadbalancing:DeleteListener",
        "elasticloadbalancing:DeleteLoadBalancer", "elasticloadbalancing:DeleteRule", "elasticloadbalancing:DeleteTargetGroup",
        "elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyListenerAttributes",
        "elasticloadbalancing:ModifyLoadBalancerAttributes", "elasticloadbalancing:ModifyRule", "elasticloadbalancing:ModifyTargetGroup",
        "elasticloadbalancing:ModifyTargetGroupAttributes", "elasticloadbalancing:RegisterTargets",
        "elasticloadbalancing:RemoveListenerCertificates", "elasticloadbalancing:RemoveTags", "elasticloadbalancing:SetIpAddressType",
        "elasticloadbalancing:SetRulePriorities", "elasticloadbalancing:SetSecurityGroups", "elasticloadbalancing:SetSubnets",
        "elasticloadbalancing:SetWebAcl",
      ]
      Resource  = local.load_balancing_arns
      Condition = local.owned
    },
    {
      Sid       = "MakeSecurityGroups"
      Effect    = "Allow"
      Action    = ["ec2:CreateSecurityGroup"]
      Resource  = local.security_group_arns
      Condition = local.becoming_own
    },
    { Sid = "InThisNetwork", Effect = "Allow", Action = ["ec2:CreateSecurityGroup"], Resource = [var.vpc_arn] },
    {
      Sid       = "TagNewSecurityGroups"
      Effect    = "Allow"
      Action    = ["ec2:CreateTags"]
      Resource  = local.security_group_arns
      Condition = { StringEquals = { "ec2:CreateAction" = "CreateSecurityGroup", "aws:RequestTag/${local.cluster_tag}" = var.cluster_name } }
    },
    {
      Sid       = "ChangeOurSecurityGroups"
      Effect    = "Allow"
      Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress", "ec2:DeleteSecurityGroup", "ec2:CreateTags", "ec2:DeleteTags"]
      Resource  = local.security_group_arns
      Condition = local.owned
    },
    {
      Sid    = "LetTheLoadBalancerReachPods"
      Effect = "Allow"
      # Rules are added to the cluster's own group, which EKS made and tagged itself.
      Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
      Resource  = local.security_group_arns
      Condition = { StringEquals = { "aws:ResourceTag/kubernetes.io/cluster/${var.cluster_name}" = "owned" } }
    },
    {
      Sid       = "FirstLoadBalancerOfTheAccount"
      Effect    = "Allow"
      Action    = ["iam:CreateServiceLinkedRole"]
      Resource  = ["arn:aws:iam::${var.account_id}:role/aws-service-role/elasticloadbalancing.amazonaws.com/*"]
      Condition = { StringEquals = { "iam:AWSServiceName" = "elasticloadbalancing.amazonaws.com" } }
    },
  ]
}
